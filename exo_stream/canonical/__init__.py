"""The canonical face: transactions over a key-value state and an event log, both or neither."""
