"""Sizes and durations as people write and read them."""

from __future__ import annotations

import re

_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_MINUTE = 60
_HOUR = 3600
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])", re.ASCII)
_SECONDS = {"d": 24 * _HOUR, "h": _HOUR, "m": _MINUTE, "s": 1}


def parse_size(text: str) -> int:
    """Read ``512M``, ``2GiB``, ``1.5g`` as bytes, by powers of 1024. ValueError says what is expected."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(
            f"{text!r} is not a size: write bytes, or a number with K, M, G or T, such as 512M or 2GiB"
        )
    return int(float(found[1]) * _FACTORS[(found[2] or "").lower()])


def format_size(size: int) -> str:
    """Render bytes in the largest binary unit that keeps a number of at least one: ``1.5 GiB``."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:  # noqa: PLR2004 - what all these units are made of
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}"


def parse_duration(text: str) -> float:
    """Read ``90``, ``30s``, ``10m``, ``1h30m``, ``1.5h`` as seconds. ValueError says what is expected."""
    written = "".join(text.split()).lower()
    if written.isascii() and written.isdecimal():
        return float(written)
    if not _DURATION.fullmatch(written):
        raise ValueError(f"{text!r} is not a duration: write seconds, or such as 30s, 10m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(written))


def format_duration(seconds: float) -> str:
    """Render seconds for people: ``84 ms``, ``1.8 s``, ``2 min 5 s``, ``3 h 20 min``."""
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
