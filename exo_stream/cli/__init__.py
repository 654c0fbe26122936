"""The commands of ``exo-stream``."""

from exo_stream.cli.program import main

__all__ = ["main"]
