"""``hashFiles``: one SHA-256 over the SHA-256 of every file that the patterns match.

Rules: GitHub's documentation of hashFiles
(https://docs.github.com/actions/reference/workflows-and-actions/expressions#hashfiles) and what the glob package
of actions/toolkit does, which the runner calls: patterns count from the workspace, ``**`` spans folders, a match
that is a folder stands for all below it, a leading ``!`` excludes, and the last pattern that matches decides.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BLOCK = 1 << 20
_TOKEN = re.compile(
    r"\\(?P<escaped>.)|(?P<stars>\*+)|(?P<question>\?)"
    r"|\[(?P<negated>[!^]?)(?P<members>(?:\\.|[^\]\\])+)\]|(?P<text>[^\\*?\[]+|.)",
    re.DOTALL,
)
_SPECIAL_IN_CLASS = re.compile(r"([\[&~|])")


def hash_files(base: str, patterns: Sequence[str]) -> str:
    """The hash in hexadecimal, or an empty string when nothing matches. Files outside ``base`` never match.

    Symbolic links count for the file they lead to and are not followed to folders. ValueError for a pattern with
    ``.`` or ``..`` inside it; OSError for a match that cannot be read.
    """
    base = os.path.realpath(base)
    rules = Rules(base, patterns)
    total = hashlib.sha256()
    found = False
    for path in _below(rules.starts):
        if path.startswith(f"{base.rstrip('/')}/") and rules.choose(path) and os.path.isfile(path):
            found = True
            total.update(_digest(path))
    return total.hexdigest() if found else ""


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def _below(starts: Sequence[str]) -> Iterator[str]:
    """What is at and below each start but folders: depth first, names of a folder in the order of their bytes."""
    stack = list(reversed(starts))
    while stack:
        path = stack.pop()
        try:
            is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        except OSError:
            continue
        if is_folder:
            names = sorted(os.listdir(path), key=os.fsencode, reverse=True)
            stack += [f"{path.rstrip('/')}/{name}" for name in names]
        else:
            yield path


class Rules:
    """Patterns, one a line, that choose among absolute paths. Pure: ``base`` is the workspace's real path."""

    def __init__(self, base: str, patterns: Sequence[str]) -> None:
        lines = (line.strip() for line in "\n".join(patterns).split("\n"))
        self._rules = [_Rule(base, line) for line in lines if line and not line.startswith("#")]

    @property
    def starts(self) -> list[str]:
        """Where to search: what precedes the first wildcard of each pattern, in order, none below another."""
        starts = list(dict.fromkeys(rule.start for rule in self._rules if not rule.excludes))
        return [s for s in starts if not any(s != o and s.startswith(f"{o.rstrip('/')}/") for o in starts)]

    def choose(self, path: str) -> bool:
        """Whether a file is to be hashed."""
        matching = (rule for rule in reversed(self._rules) if rule.expression.fullmatch(path))
        return next((not rule.excludes for rule in matching), False)


class _Rule:
    """One pattern: it matches a path, and everything below a folder that it matches."""

    def __init__(self, base: str, pattern: str) -> None:
        text = pattern.lstrip("! ")
        self.excludes = pattern[: len(pattern) - len(text)].count("!") % 2 == 1
        parts = [part for part in text.split("/") if part]
        if parts[:1] == ["."] and not text.startswith("/"):
            del parts[0]
        if {".", ".."}.intersection(parts):
            raise ValueError(f"hashFiles: invalid pattern {pattern!r}: '.' and '..' are not allowed in it")
        folder = "" if text.startswith("/") else base.rstrip("/")
        plain = next((index for index, part in enumerate(parts) if _literal(part) is None), len(parts))
        self.start = "/".join([folder, *(_literal(part) or "" for part in parts[:plain])]) or "/"
        below = "/.+" if text.endswith("/") else "(?:/.+)?"
        self.expression = re.compile(re.escape(folder) + "".join(map(_part, parts)) + below, re.DOTALL)


def _literal(part: str) -> str | None:
    """The one name that a part of a pattern stands for, ``None`` if it has wildcards."""
    name = ""
    for token in _TOKEN.finditer(part):
        members = re.sub(r"\\(.)", r"\1", token["members"] or "")
        if token["stars"] or token["question"] or token["negated"] or len(members) > 1:
            return None
        name += token["escaped"] or members or token["text"]
    return name


def _part(part: str) -> str:
    return "(?:/[^/]+)*" if part == "**" else "/" + "".join(map(_translate, _TOKEN.finditer(part)))


def _translate(token: re.Match[str]) -> str:
    if token["stars"]:
        return "[^/]*"
    if token["question"]:
        return "[^/]"
    if token["members"]:
        members = _SPECIAL_IN_CLASS.sub(r"\\\1", token["members"])
        return f"(?!/)[{'^' if token['negated'] else ''}{members}]"
    return re.escape(token["escaped"] or token["text"])
