"""The streams face: appendable, readable, closable streams of messages."""
