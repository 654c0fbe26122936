"""Compression of messages, both ways: gzip and zstd, in slices, and never beyond a bound."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from exo_stream.protocol.connect.failure import CallError, Code

# Python's own module from 3.14 on, its backport before. Only one of the two can run on any one
# Python, and this is a pure room, in which every line that can run has to be tested.
if sys.version_info >= (3, 14):  # pragma: no cover  the tests run on an older one
    from compression import zstd
else:
    from backports import zstd

ENCODINGS: Final = ("gzip", "zstd")
IDENTITY: Final = "identity"
SLICE_BYTES: Final = 262_144
"""How much is compressed or decompressed in one go: others run between two slices."""
COMPRESSED_BYTES_MIN: Final = 1024
"""What is smaller is sent as it is."""

_GZIP: Final = 31
_INPUT_BYTES: Final = 65_536
"""How much is handed in at once: zlib copies what it has not come to, each time."""
_WINDOW_LOG_MAX: Final = 23
"""What RFC 8878 asks a decoder to support, 8 MiB; a frame may ask for 2 GiB."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


class _Gzip:
    """One gzip member, with the interface of the zstd one: what is left over is kept."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=_GZIP)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail or data, max_length)


def decompressed(encoding: str, data: bytes, bytes_max: int) -> Iterator[bytes]:
    """What ``data`` was before it was compressed, slice by slice.

    Raises CallError for what is no whole stream of this encoding, or becomes more than
    ``bytes_max``.
    """
    size = 0
    try:
        for piece in _slices(encoding, data):
            size += len(piece)
            if size > bytes_max:
                raise CallError(
                    Code.RESOURCE_EXHAUSTED,
                    f"a message has at most {bytes_max} bytes, this one becomes more",
                )
            yield piece
    except (zlib.error, zstd.ZstdError) as error:
        raise CallError(Code.INVALID_ARGUMENT, f"the message is no {encoding}: {error}") from None


def _slices(encoding: str, data: bytes) -> Iterator[bytes]:
    """Of one stream: a second one behind it is refused, or thousands of empty ones would do."""
    one = _decompressor(encoding)
    view = memoryview(data)
    for start in range(0, len(data), _INPUT_BYTES):
        piece = one.decompress(view[start : start + _INPUT_BYTES], SLICE_BYTES)
        yield piece
        while len(piece) == SLICE_BYTES and not one.eof:
            piece = one.decompress(b"", SLICE_BYTES)
            yield piece
        if one.eof:
            if one.unused_data or start + _INPUT_BYTES < len(data):
                raise CallError(Code.INVALID_ARGUMENT, f"more follows the message's {encoding}")
            return
    raise CallError(Code.INVALID_ARGUMENT, f"the message ends in its {encoding}")


def _decompressor(encoding: str) -> _Decompressor:
    if encoding == "gzip":
        return _Gzip()
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    )


def compressed(encoding: str, data: bytes) -> Iterator[bytes]:
    """``data`` compressed, slice by slice, quickly rather than well."""
    view = memoryview(data)
    compressor = (
        zlib.compressobj(1, wbits=_GZIP) if encoding == "gzip" else zstd.ZstdCompressor(level=1)
    )
    for start in range(0, len(data), SLICE_BYTES):
        yield compressor.compress(view[start : start + SLICE_BYTES])
    yield compressor.flush()


def known_encoding(name: str | None) -> str:
    """The encoding that a request names. Raises CallError for one that is not known here."""
    if name is None or name in {"", IDENTITY}:
        return IDENTITY
    if name in ENCODINGS:
        return name
    raise CallError(
        Code.UNIMPLEMENTED, f"no compression {name[:40]!r} here, only {' and '.join(ENCODINGS)}"
    )


def accepted_encoding(accepts: str | None) -> str:
    """The first encoding of an Accept-Encoding that is known here; identity if there is none."""
    for item in (accepts or "").split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name.lower() in ENCODINGS and not any(map(_is_zero, parameters)):
            return name.lower()
    return IDENTITY


def _is_zero(parameter: str) -> bool:
    """Whether this is a weight of nothing, which forbids what it stands behind."""
    name, _, weight = parameter.partition("=")
    return name.strip().lower() == "q" and not weight.strip().strip("0.")
