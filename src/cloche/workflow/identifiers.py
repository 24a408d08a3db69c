"""Ids of jobs and steps."""

from __future__ import annotations

import re

_VALID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MAX = 100


class Identifiers:
    """The ids of one scope, compared without case. The messages are GitHub's, word for word."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self.spelled: set[str] = set()
        """The ids taken, as they were written."""

    def add(self, text: str) -> str | None:
        """Take ``text`` as an id and return what is wrong with it, ``None`` if nothing is."""
        if not _VALID.fullmatch(text) or len(text) >= _MAX:
            return (
                f"The identifier '{text}' is invalid. "
                "IDs may only contain alphanumeric characters, '_', and '-'. "
                f"IDs must start with a letter or '_' and and must be less than {_MAX} characters."
            )
        if text.startswith("__"):
            return f"The identifier '{text}' is invalid. IDs starting with '__' are reserved."
        if text.lower() in self._taken:
            return f"The identifier '{text}' may not be used more than once within the same scope."
        self._taken.add(text.lower())
        self.spelled.add(text)
        return None
