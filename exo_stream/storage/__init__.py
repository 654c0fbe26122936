"""The DuckDB file: the log, the table that is its fold, and what keeps both true."""
