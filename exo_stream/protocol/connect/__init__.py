"""The Connect protocol without I/O: heads, envelopes, codecs, compression, errors and deadlines."""
