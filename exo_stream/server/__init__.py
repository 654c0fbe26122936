"""The shells around the protocols: one port, and a task for each connection."""
