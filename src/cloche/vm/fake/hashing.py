"""GitHub's ``hashFiles`` over the fake's files.

Rules: https://docs.github.com/actions/reference/workflows-and-actions/expressions#hashfiles and the behaviour of
the glob package of actions/toolkit that the runner calls.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import TYPE_CHECKING

from cloche.vm.fake.files import File, Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.vm.fake.files import FileSystem

_TOKEN = re.compile(r"\\(.)|(\*+)|(\?)|\[([!^]?)(\]?[^\]/]*)\]|([^\\*?\[]+|.)", re.DOTALL)


def hash_files(files: FileSystem, base: str, patterns: Sequence[str]) -> str:
    """One SHA-256 over the SHA-256 of each match, in the order found; empty when nothing matches."""
    digests = [hashlib.sha256(files.read(path)).digest() for path in _matches(files, base, patterns)]
    return hashlib.sha256(b"".join(digests)).hexdigest() if digests else ""


def _matches(files: FileSystem, base: str, patterns: Sequence[str]) -> Iterator[str]:
    base = files.resolve(base)
    rules = [
        _Rule(base, pattern.strip()) for pattern in patterns if pattern.strip() and pattern.strip()[0] != "#"
    ]
    for start in _starts(rules):
        if files.lookup(start, follow=False) is None:
            continue
        for relative, node in files.walk(start):
            path = posixpath.join(start, relative) if relative else start
            inside = path.startswith(base.rstrip("/") + "/")
            if inside and not isinstance(node, Folder) and _chosen(rules, path):
                if isinstance(files.lookup(path), File):  # a link counts for the file it leads to
                    yield path


def _chosen(rules: Sequence[_Rule], path: str) -> bool:
    """Whether the last pattern that matches includes: a later one overrules an earlier one."""
    return next((not rule.excludes for rule in reversed(rules) if rule.expression.fullmatch(path)), False)


def _starts(rules: Sequence[_Rule]) -> list[str]:
    """Where to search: the part of each pattern before its first wildcard, in order, none below another."""
    starts = list(dict.fromkeys(rule.start for rule in rules if not rule.excludes))
    return [s for s in starts if not any(s != o and s.startswith(o.rstrip("/") + "/") for o in starts)]


class _Rule:
    """One pattern. It matches a path, and everything below a folder that it matches."""

    def __init__(self, base: str, pattern: str) -> None:
        self.excludes = (len(pattern) - len(pattern.lstrip("!"))) % 2 == 1
        absolute = posixpath.normpath(posixpath.join(base, pattern.lstrip("!").strip()))
        parts = absolute.strip("/").split("/")
        plain = next((n for n, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
        self.start = "/" + "/".join(part.replace("\\", "") for part in parts[:plain])
        self.expression = re.compile("".join(map(_part, parts)) + "(?:/.*)?", re.DOTALL)


def _part(part: str) -> str:
    if part == "**":
        return "(?:/[^/]+)*"
    return "/" + "".join(map(_translate, _TOKEN.finditer(part)))


def _translate(token: re.Match[str]) -> str:
    escaped, stars, question, negated, members, text = token.groups()
    if stars:
        return "[^/]*"
    if question:
        return "[^/]"
    if members:
        body = re.sub(r"([\\\[^&~|])", r"\\\1", members)
        return f"[{'^' if negated else ''}{body}]"
    return re.escape(escaped or text)
