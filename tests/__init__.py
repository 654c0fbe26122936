"""What exo-stream promises, each promise by a test that can fail."""
