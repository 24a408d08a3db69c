"""Strings with ``${{ }}`` in them, and conditions.

How a string is cut into its parts, and that several parts become one call of ``format``, is GitHub's way; the
limits of an expression hold for that call too.
"""

from __future__ import annotations

import re
from itertools import count, islice
from typing import TYPE_CHECKING

from cloche.expressions.errors import ParsingError, Source
from cloche.expressions.expression import Expression, parse_source
from cloche.expressions.names import BUILT_IN, MAX_ARGUMENTS, STATUS_FUNCTIONS, Names
from cloche.expressions.parser import check_depth, check_length
from cloche.expressions.syntax import Call, Literal
from cloche.expressions.values import WHITE_SPACE
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloche.expressions.evaluator import Scope
    from cloche.expressions.values import Value

_OPEN = "${{"
# One expression more than format can take: no need to look at the rest of a text that is refused anyway.
_MOST_PARTS = 2 * MAX_ARGUMENTS + 1
# Up to the first "}}" that is not in a quoted string.
_INSIDE = re.compile(r"((?:[^'}]++|'[^']*+'|\}(?!\}))*)\}\}")


_NOT_CLOSED = (
    "The expression is not closed. An unescaped ${{ sequence was found, "
    "but the closing }} sequence was not found."
)


@record
class Template:
    """A string that may hold expressions: its value is that of ``expression``, or ``literal`` without one."""

    literal: str = ""
    expression: Expression | None = None

    @property
    def is_literal(self) -> bool:
        """Whether the value is the same in every scope and known now: it is ``literal``."""
        return self.expression is None

    def evaluate(self, scope: Scope) -> Value:
        """Return the value: of any kind if the string is exactly one expression, else a string.

        Raises EvaluationError, and Pending (or anything else) when a function of the scope raises it.
        """
        return self.literal if self.expression is None else self.expression.evaluate(scope)


def parse_template(
    text: str, *, contexts: Iterable[str] | None = None, functions: Iterable[str] | None = None
) -> Template:
    """Parse a string with any number of ``${{ }}``; ``contexts`` and ``functions`` as for parse().

    Raises LexingError or ParsingError; their ``offset`` is the place in ``text``.
    """
    return _template(text, Names(contexts, functions))


def condition(
    text: str, *, contexts: Iterable[str] | None = None, functions: Iterable[str] | None = None
) -> str:
    """Return the expression that the ``if:`` written as ``text`` means.

    That is the text without the ``${{ }}`` around it, with ``success()`` in front unless a status function is
    called anywhere in it. A text with ``${{ }}`` and more is a string, and a string is true.

    Raises LexingError or ParsingError; their ``offset`` is the place in ``text``.
    """
    names = Names(contexts, functions)
    expression = _bare_condition(text, names)
    if expression.root is None:
        return "success()"
    if expression.functions_called() & STATUS_FUNCTIONS:
        return expression.text
    return f"success() && ({expression.text})"


def _bare_condition(text: str, names: Names) -> Expression:
    template = _template(text, names)
    return template.expression or parse_source(_trimmed(template.literal, 0, len(template.literal)), names)


def _template(text: str, names: Names) -> Template:
    parts = list(islice(_parts(text), _MOST_PARTS))
    if len(parts) > 1:
        return Template(expression=_joined(parts, names))
    match [part if isinstance(part, str) else parse_source(part, names) for part in parts]:
        case [Expression(root=Literal(value=str(value))) as only] if only.text.startswith("'"):
            return Template(value)
        case [Expression() as only]:
            return Template(expression=only)
        case _:
            return Template(text)


def _parts(text: str) -> Iterator[str | Source]:
    """Yield the plain pieces of ``text`` and, trimmed, the expressions between them."""
    offset = 0
    while (start := text.find(_OPEN, offset)) >= 0:
        if start > offset:
            yield text[offset:start]
        match = _INSIDE.match(text, start + len(_OPEN))
        if match is None:
            raise ParsingError(_NOT_CLOSED, offset=start)
        source = _trimmed(text, *match.span(1))
        if not source.text:
            raise ParsingError("An expression was expected", offset=start)
        yield source
        offset = match.end()
    if offset < len(text):
        yield text[offset:]


def _trimmed(text: str, start: int, end: int) -> Source:
    inside = text[start:end]
    left = len(inside) - len(inside.lstrip(WHITE_SPACE))
    return Source(text, start + left, start + left + len(inside.strip(WHITE_SPACE)))


def _joined(parts: list[str | Source], names: Names) -> Expression:
    """Return the one call of ``format`` that GitHub makes of several parts.

    Its tree is made of the parts' trees, so that places in the user's text stay true.
    """
    template = _format_string(parts)
    sources = [part for part in parts if isinstance(part, Source)]
    text = "".join(
        ["format('", template.replace("'", "''"), "'", *(f", {source.text}" for source in sources), ")"]
    )
    joined = Source(text, 0, len(text))
    check_length(joined)
    arguments = [root for source in sources if (root := parse_source(source, names).root) is not None]
    problem = BUILT_IN["format"].problem(1 + len(arguments))
    if problem:
        hint = "write fewer ${{ }} into one string, or put them into variables first"
        raise ParsingError(f"{problem}: {len(arguments)} expressions in one string", hint=hint)
    root = Call(0, "format", (Literal(0, template), *arguments))
    check_depth(joined, root)
    return Expression(text, root)


def _format_string(parts: list[str | Source]) -> str:
    indexes = count()
    return "".join(
        f"{{{next(indexes)}}}" if isinstance(part, Source) else part.replace("{", "{{").replace("}", "}}")
        for part in parts
    )
