"""Durable Streams over HTTP: the routes below /v1/stream/, and readers that are served together."""
