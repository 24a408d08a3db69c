"""GitHub's ``hashFiles`` over the fake's files.

Rules: https://docs.github.com/actions/reference/workflows-and-actions/expressions#hashfiles and what the glob
package of actions/toolkit, which the runner calls, does.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import TYPE_CHECKING

from cloche.errors import GuestError
from cloche.vm.fake.files import File, Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.vm.fake.files import FileSystem

_TOKEN = re.compile(r"\\(.)|(\*+)|(\?)|\[([!^]?)((?:\\.|[^\]/\\])+)\]|([^\\*?\[]+|.)", re.DOTALL)


def hash_files(files: FileSystem, base: str, patterns: Sequence[str]) -> str:
    """One SHA-256 over the SHA-256 of each match, in the order found; empty when nothing matches.

    GuestError for a pattern with ``.`` or ``..`` inside it, which GitHub refuses too.
    """
    if files.lookup(base) is None:
        return ""
    base = files.resolve(base)
    lines = (line.strip() for line in "\n".join(patterns).split("\n"))
    rules = [_Rule(base, line) for line in lines if line and not line.startswith("#")]
    digests = [hashlib.sha256(files.read(path)).digest() for path in _matches(files, base, rules)]
    return hashlib.sha256(b"".join(digests)).hexdigest() if digests else ""


def _matches(files: FileSystem, base: str, rules: Sequence[_Rule]) -> Iterator[str]:
    for start in _starts(rules):
        if files.lookup(start, follow=False) is None:
            continue
        for relative, node in files.walk(start):
            path = posixpath.join(start, relative) if relative else start
            inside = path.startswith(base.rstrip("/") + "/") and not isinstance(node, Folder)
            if inside and _chosen(rules, path) and isinstance(files.lookup(path), File):
                yield path  # a link counts for the file it leads to, but is not followed to a folder


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
        text = pattern.lstrip("! ")
        self.excludes = pattern[: len(pattern) - len(text)].count("!") % 2 == 1
        only_folders = text.endswith("/")
        parts = [part for part in text.split("/") if part]
        if parts[:1] == ["."] and not text.startswith("/"):
            del parts[0]
        if {".", ".."}.intersection(parts):
            raise GuestError(f"hashFiles: invalid pattern {pattern!r}: '.' and '..' are not allowed in it")
        base = "" if text.startswith("/") or base == "/" else base
        plain = next((n for n, part in enumerate(parts) if _literal(part) is None), len(parts))
        self.start = "/".join([base, *(_literal(part) or "" for part in parts[:plain])]) or "/"
        below = "/.+" if only_folders else "(?:/.+)?"
        self.expression = re.compile(re.escape(base) + "".join(map(_part, parts)) + below, re.DOTALL)


def _literal(part: str) -> str | None:
    """Unescape the one name a part of a pattern stands for; ``None`` if it has wildcards."""
    name = ""
    for escaped, stars, question, negated, members, text in _TOKEN.findall(part):
        members_unescaped = re.sub(r"\\(.)", r"\1", members)
        if stars or question or negated or len(members_unescaped) > 1:
            return None
        name += escaped or members_unescaped or text
    return name


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
        body = re.sub(r"([\[&~|])", r"\\\1", members)
        return f"(?!/)[{'^' if negated else ''}{body}]"
    return re.escape(escaped or text)
