"""exo_stream: an event log and a key-value table in one DuckDB file, inside your trio program."""
