"""GitHub's ``hashFiles`` over the fake's files, by the rules that the agent goes by."""

from __future__ import annotations

import hashlib
import posixpath
from typing import TYPE_CHECKING

from cloche.errors import GuestError
from cloche.guest.hashing import Rules
from cloche.vm.fake.files import File, Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.vm.fake.files import FileSystem


def hash_files(files: FileSystem, base: str, patterns: Sequence[str]) -> str:
    """One SHA-256 over the SHA-256 of each match, in the order found; empty when nothing matches.

    GuestError for a pattern with ``.`` or ``..`` inside it, which GitHub refuses too.
    """
    if files.lookup(base) is None:
        return ""
    base = files.resolve(base)
    try:
        rules = Rules(base, patterns)
    except ValueError as error:
        raise GuestError(str(error)) from None
    digests = [hashlib.sha256(files.read(path)).digest() for path in _matches(files, base, rules)]
    return hashlib.sha256(b"".join(digests)).hexdigest() if digests else ""


def _matches(files: FileSystem, base: str, rules: Rules) -> Iterator[str]:
    for start in rules.starts:
        if files.lookup(start, follow=False) is None:
            continue
        for relative, node in files.walk(start):
            path = posixpath.join(start, relative) if relative else start
            inside = path.startswith(base.rstrip("/") + "/") and not isinstance(node, Folder)
            if inside and rules.choose(path) and isinstance(files.lookup(path), File):
                yield path  # a link counts for the file it leads to, but is not followed to a folder
