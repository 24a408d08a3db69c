"""``hashFiles``: one SHA-256 over the SHA-256 of every file that the patterns match.

Rules: GitHub's documentation of hashFiles and of the glob patterns of its toolkit: patterns are relative to
the workspace, ``**`` spans folders, a leading ``!`` excludes, a match that is a folder stands for all below it.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BLOCK = 1 << 20


def hash_files(base: str, patterns: Sequence[str]) -> str:
    """The hash in hexadecimal, or an empty string when nothing matches. Files outside ``base`` never match."""
    included = [_compile(p) for p in patterns if not p.startswith("!")]
    excluded = [_compile(p[1:]) for p in patterns if p.startswith("!")]
    total = hashlib.sha256()
    found = False
    for relative in _files(base, ""):
        if any(p.match(relative) for p in included) and not any(p.match(relative) for p in excluded):
            found = True
            total.update(_digest(f"{base}/{relative}"))
    return total.hexdigest() if found else ""


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def _files(base: str, prefix: str) -> Iterator[str]:
    """Regular files below ``base``, depth first, names in order; symbolic links are followed only to files."""
    try:
        entries = sorted(os.scandir(f"{base}/{prefix}"), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        relative = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _files(base, f"{relative}/")
        elif entry.is_file():
            yield relative


def _compile(pattern: str) -> re.Pattern[str]:
    pattern = pattern.removeprefix("./").rstrip("/")
    expression = "".join(
        _translate(part) for part in re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?|\[[^/\]]+\])", pattern)
    )
    return re.compile(f"{expression}(?:/.*)?\\Z", re.DOTALL)


def _translate(part: str) -> str:
    special = {"**/": "(?:.*/)?", "/**": "(?:/.*)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if part in special:
        return special[part]
    if part.startswith("[") and part.endswith("]"):
        body = part[1:-1].replace("\\", "\\\\")
        return f"[^{body[1:]}]" if body[:1] in ("!", "^") else f"[{body}]"
    return re.escape(part)
