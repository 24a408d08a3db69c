"""Which contexts and functions an expression may use, and how many arguments a function takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_ARGUMENTS = 255

CONTEXTS = frozenset(
    {
        "env",
        "github",
        "inputs",
        "job",
        "jobs",
        "matrix",
        "needs",
        "runner",
        "secrets",
        "steps",
        "strategy",
        "vars",
    }
)
"""Every context GitHub has: https://docs.github.com/en/actions/reference/workflows-and-actions/contexts"""


@record
class Arity:
    """How many arguments a function takes; ``odd``: their number must be odd."""

    least: int
    most: int
    odd: bool = False

    def problem(self, count: int) -> str | None:
        """GitHub's words for what is wrong with ``count`` arguments, ``None`` if nothing is."""
        if count < self.least:
            return "Too few parameters supplied"
        if count > self.most:
            return "Too many parameters supplied"
        if self.odd and count % 2 == 0:
            return "Even number of parameters supplied, requires an odd number of parameters"
        return None

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.least} argument{'' if self.least == 1 else 's'}"
        return f"{'an odd number of arguments, ' if self.odd else ''}{self.least} to {self.most} arguments"


BUILT_IN: Mapping[str, Arity] = {
    "case": Arity(3, MAX_ARGUMENTS, odd=True),
    "contains": Arity(2, 2),
    "endswith": Arity(2, 2),
    "format": Arity(1, MAX_ARGUMENTS),
    "fromjson": Arity(1, 1),
    "join": Arity(1, 2),
    "startswith": Arity(2, 2),
    "tojson": Arity(1, 1),
}
"""The functions that work everywhere, by lower-case name."""

STATUS_FUNCTIONS = frozenset({"always", "cancelled", "failure", "success"})

EXTENSIONS: Mapping[str, Arity] = {
    "always": Arity(0, 0),
    "cancelled": Arity(0, 0),
    "failure": Arity(0, MAX_ARGUMENTS),
    "hashfiles": Arity(1, MAX_ARGUMENTS),
    "success": Arity(0, MAX_ARGUMENTS),
}
"""The functions that work in some places only and come from the scope, by lower-case name."""

_WITH_ARITY = re.compile(r"(\w+)\((\d+),(\d+|MAX)\)")


class Names:
    """The names known at one place of a workflow. Case does not count."""

    def __init__(self, contexts: Iterable[str] | None, functions: Iterable[str] | None) -> None:
        self._contexts = CONTEXTS if contexts is None else frozenset(name.lower() for name in contexts)
        known = EXTENSIONS if functions is None else dict(_extension(name) for name in functions)
        self._functions = {**known, **BUILT_IN}

    def has_context(self, name: str) -> bool:
        """Whether ``name`` is a context known here."""
        return name.lower() in self._contexts

    def arity(self, function: str) -> Arity | None:
        """Return what ``function`` takes, ``None`` if it is not known here."""
        return self._functions.get(function.lower())

    def context_hint(self) -> str:
        """Say which names there are, for an error."""
        names = ", ".join(sorted(self._contexts)) or "none"
        return f"contexts known here: {names}; text is written in single quotes"

    def function_hint(self) -> str:
        """Say which names there are, for an error."""
        return f"functions known here: {', '.join(sorted(self._functions))}"


def _extension(name: str) -> tuple[str, Arity]:
    """``success`` or, to narrow what it takes, ``success(0,0)`` as GitHub's schema writes it."""
    match = _WITH_ARITY.fullmatch(name)
    if match is None:
        return name.lower(), EXTENSIONS.get(name.lower(), Arity(0, MAX_ARGUMENTS))
    most = MAX_ARGUMENTS if match[3] == "MAX" else int(match[3])
    return match[1].lower(), Arity(int(match[2]), most)
