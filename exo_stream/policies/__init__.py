"""Prune and retention: which keys leave the table and which batches the log, as pure rules."""
