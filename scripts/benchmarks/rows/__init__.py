"""The rows: one module each, with a ``measure`` that yields results as they come."""
