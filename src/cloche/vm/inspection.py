"""Reading what a guest says is in it. It is hostile: a ProtocolError for what no agent of ours would say."""

from __future__ import annotations

from cloche.guest import protocol
from cloche.vm.guest import Inspection
from cloche.vm.words import plain

_MAX_NAME = 256
_MAX_KINDS = 16
_MAX_LINES = 1024
_MAX_LINE = 512


def read_inspection(answer: protocol.Header) -> Inspection:
    """Check an answer to ``inspect``."""
    kinds = answer.get("state")
    if not isinstance(kinds, dict) or len(kinds) > _MAX_KINDS:
        raise protocol.ProtocolError("state is not a small object")
    return Inspection(
        boot_id=protocol.text(answer, "boot_id", _MAX_NAME),
        hostname=protocol.text(answer, "hostname", _MAX_NAME),
        clock=protocol.number(answer, "clock"),
        entropy=_bytes(protocol.text(answer, "entropy", _MAX_NAME)),
        state={plain(kind, _MAX_LINE): _lines(lines) for kind, lines in kinds.items()},
    )


def _lines(lines: object) -> tuple[str, ...]:
    if not isinstance(lines, list) or len(lines) > _MAX_LINES:
        raise protocol.ProtocolError("state holds something other than a short list")
    if not all(isinstance(line, str) and len(line) <= _MAX_LINE for line in lines):
        raise protocol.ProtocolError("state holds something other than short texts")
    return tuple(plain(line, _MAX_LINE) for line in lines)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise protocol.ProtocolError("entropy is not hexadecimal") from None
