"""Wire formats and their state machines as pure functions: bytes in, values out, no I/O."""
