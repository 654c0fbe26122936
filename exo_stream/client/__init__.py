"""The client: the verbs of a platform over one WebSocket that comes back when it is lost."""

from exo_stream.client.handle import Client, connect

__all__ = ["Client", "connect"]
