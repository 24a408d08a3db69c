"""What a guest says in its own words, made fit for a message: it may try to write to our terminal with them."""

from __future__ import annotations

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def plain(text: str, limit: int = 4096) -> str:
    """At most ``limit`` characters of ``text``, without any that would not be printed as they are."""
    return "".join(one if one.isprintable() or one in "\n\t" else _REPLACEMENT for one in text[:limit])
