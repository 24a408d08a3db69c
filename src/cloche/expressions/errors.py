"""What goes wrong with an expression, in GitHub's own words, with the place."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from cloche.errors import EXIT_USAGE, ClocheError
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Hashable


class ExpressionError(ClocheError):
    """Base of all. ``offset`` counts characters from 0 in the text that was handed to this room."""

    def __init__(self, message: str, *, offset: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.offset = offset


class LexingError(ExpressionError):
    """Raised when a piece of an expression is no token of the language."""

    exit_code: ClassVar[int] = EXIT_USAGE


class ParsingError(ExpressionError):
    """Raised when the tokens make no expression, name what is not known here, or pass a limit."""

    exit_code: ClassVar[int] = EXIT_USAGE


class EvaluationError(ExpressionError):
    """Raised when a well-formed expression cannot be evaluated: a bad argument or the memory limit."""


class Pending(Exception):  # noqa: N818 - a state, not a mistake: the value is not known yet
    """Raised by a function of the scope whose value must first be found out elsewhere.

    Evaluation lets it pass unchanged; resolve ``key`` and evaluate again.
    """

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.key = key


_Error = TypeVar("_Error", bound=ExpressionError)


@record
class Source:
    """An expression within the text the user wrote: from ``start`` up to ``end`` of ``whole``."""

    whole: str
    start: int
    end: int

    @property
    def text(self) -> str:
        """The expression alone."""
        return self.whole[self.start : self.end]

    def error(
        self, kind: type[_Error], description: str, symbol: str, offset: int, hint: str | None = None
    ) -> _Error:
        """Make an error about ``symbol``, which is at ``offset`` of the whole, worded as GitHub words it."""
        position = utf16_length(self.whole[self.start : offset]) + 1
        message = f"{description}: '{symbol}'. Located at position {position} within expression: {self.text}"
        return kind(message, offset=offset, hint=hint)


def utf16_length(text: str) -> int:
    """Return the length of ``text`` as GitHub counts it: in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
