"""The URL by which others reach a server, as a word of the command line."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit


def public_url(word: str) -> str:
    """``https://host``, perhaps with a port and a path, without a slash at its end."""
    try:
        parts = urlsplit(word)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not word.isascii() or any(sign in word for sign in "?#@ "):
        raise argparse.ArgumentTypeError(f"{word!r} is not a URL such as https://streams.example")
    return word.rstrip("/")
