"""What scripts/bench measures: exo-stream beside Redis and NATS, a row of its table a module."""
