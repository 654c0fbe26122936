"""The commands of ``exo-stream``."""
