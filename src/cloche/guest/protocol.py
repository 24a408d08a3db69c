"""The wire between host and guest agent: frames, their limits, and the names of the messages.

A frame is two big-endian 32-bit lengths, a JSON object (the header) and a binary payload. Both ends check the
lengths before they keep a byte, so neither can be made to hold more than one frame's limit.

Host to agent
    hello, adopt, prepare, ping, inspect               requests; ``r`` numbers them
    job.open, job.close                                likewise
    exec                                               starts a process as stream ``s``
    data, eof, credit, signal, resize                  concern stream ``s``
Agent to host
    reply                                              to request ``r``; ``error`` is set when it failed
    data, credit, file, exit                           concern stream ``s``; ``exit`` is its last

Flow control: a sender of ``data`` may have at most the granted credit of bytes on its way; the receiver grants
more with ``credit`` as it consumes.
"""

from __future__ import annotations

import json
import struct

VERSION = 1
"""Both ends must speak the same; templates are remade when the agent changes, so there is nothing to bridge."""

MAX_HEADER = 4 * 1024 * 1024
MAX_PAYLOAD = 16 * 1024 * 1024
MAX_GUEST_HEADER = 256 * 1024
"""Bytes of a header that the host takes: the agent has no reason to say much outside payloads."""
CHUNK = 64 * 1024
"""Bytes in one ``data`` frame at most."""
WINDOW = 512 * 1024
"""Credit that a stream starts with, in each direction."""
MAX_COLLECTED = 4 * 1024 * 1024
"""Bytes of one collected file in a ``file`` frame; what is longer is cut there and marked."""

_MAX_NUMBER = 1e15
_LENGTHS = struct.Struct("!II")

Header = dict[str, object]


class ProtocolError(Exception):
    """The other end broke the rules of the wire; the channel is of no further use."""


def encode(header: Header, payload: bytes = b"") -> bytes:
    """One frame. ProtocolError if it is over the limits."""
    raw = json.dumps(header, separators=(",", ":")).encode()
    if len(raw) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
        raise ProtocolError(f"a frame of {len(raw)}+{len(payload)} bytes is over the limit")
    return b"".join((_LENGTHS.pack(len(raw), len(payload)), raw, payload))


class Decoder:
    """Bytes in, frames out, never holding more than one frame and what one read brought."""

    def __init__(self, max_header: int = MAX_HEADER, max_payload: int = MAX_PAYLOAD) -> None:
        self._buffer = bytearray()
        self._max_header = max_header
        self._max_payload = max_payload

    def feed(self, data: bytes) -> list[tuple[Header, bytes]]:
        """The frames that ``data`` completes. ProtocolError on a length over the limit or a bad header."""
        buffer = self._buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= _LENGTHS.size:
            head, body = _LENGTHS.unpack_from(buffer, start)
            if head > self._max_header or body > self._max_payload:
                raise ProtocolError(f"a frame announces {head}+{body} bytes, over the limit")
            middle = start + _LENGTHS.size + head
            end = middle + body
            if len(buffer) < end:
                break
            frames.append((_header(bytes(buffer[start + _LENGTHS.size : middle])), bytes(buffer[middle:end])))
            start = end
        del buffer[:start]
        return frames

    @property
    def pending(self) -> int:
        """Bytes of a frame that has not arrived whole."""
        return len(self._buffer)


def _header(raw: bytes) -> Header:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame's header is not JSON: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("t"), str):
        raise ProtocolError("a frame's header is not an object with a type")
    return header


# Fields of headers. Each raises ProtocolError for a field that is missing or not what it has to be.


def whole(header: Header, key: str, low: int = 0, high: int = 2**63 - 1, default: int | None = None) -> int:
    """A whole number from ``low`` to ``high``."""
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ProtocolError(f"{key} is not a whole number from {low} to {high}")
    return value


def number(header: Header, key: str, default: float | None = None) -> float:
    """A finite number that is not negative."""
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_NUMBER:
        raise ProtocolError(f"{key} is not a number from 0 to {_MAX_NUMBER}")
    return float(value)


def text(header: Header, key: str, limit: int = 4096, default: str | None = None) -> str:
    """Text of at most ``limit`` characters."""
    value = header.get(key, default)
    if not isinstance(value, str) or len(value) > limit:
        raise ProtocolError(f"{key} is not text of at most {limit} characters")
    return value
