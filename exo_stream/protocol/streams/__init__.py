"""Durable Streams over HTTP as values: what a request asks, and how an answer is written."""
