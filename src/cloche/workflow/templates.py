"""Scalars of a workflow file as text: what is literal in them and what is an expression."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from cloche.expressions import ExpressionError, ParsingError, parse_template, to_string
from cloche.expressions.parser import MAX_LENGTH
from cloche.records import record
from cloche.workflow.nodes import Mapping, Scalar, Sequence

if TYPE_CHECKING:
    from cloche.expressions import Value
    from cloche.workflow.nodes import Node
    from cloche.workflow.schema import Allowed

OPEN = "${{"
_INSERT = re.compile(r"\$\{\{\s*insert\s*\}\}")
_INSERT_ANYWHERE = re.compile(r"\$\{\{\s*insert(?=\s|\}\})")
_TO_THE_END = re.compile(r"(?:[^'}]|'[^']*')*\}\}")


@record
class Insert:
    """``${{ insert }}`` as a key: the entries of the value, in this place."""


@record
class Templated:
    """A scalar whose value is known only when its expressions are evaluated."""


def interpret(scalar: Scalar, allowed: Allowed) -> Scalar | Templated | Insert | ExpressionError:
    """Tell what ``scalar`` is: a literal (``${{ 'text' }}`` is one), a template, or ``${{ insert }}``.

    It is an ExpressionError if its expression is none or uses what is not ``allowed``.
    """
    if not isinstance(scalar.value, str) or OPEN not in scalar.value:
        return scalar
    if is_insert(scalar):
        return Insert()
    if (directive := _INSERT_ANYWHERE.search(scalar.value)) and (
        rest := _TO_THE_END.match(scalar.value, directive.end())
    ):
        return ParsingError(_misplaced(rest[0].removesuffix("}}")), offset=directive.start())
    too_long_to_keep = len(scalar.value) > MAX_LENGTH
    text = (_literal.__wrapped__ if too_long_to_keep else _literal)(scalar.value, allowed)
    if isinstance(text, str):
        return Scalar(text, text, scalar.position, quoted=True)
    return text or Templated()


def _misplaced(written: str) -> str:
    """GitHub's words for ``${{ insert }}`` with parameters ``written``, or beside other text."""
    if parameters := len(written.split()):
        return (
            "Exactly 0 parameter(s) were expected following the directive 'insert'. "
            f"Actual parameter count: {parameters}"
        )
    return (
        "The directive 'insert' is not allowed in this context. Directives are not supported for expressions that "
        "are embedded within a string. Directives are only supported when the entire value is an expression."
    )


@lru_cache(maxsize=256)
def _literal(text: str, allowed: Allowed) -> str | ExpressionError | None:
    """Return the constant that ``text`` comes to, ``None`` if it is none.

    Remembered, because with aliases one long expression may stand in a file thousands of times.
    """
    try:
        template = parse_template(text, contexts=allowed.contexts, functions=allowed.functions)
    except ExpressionError as error:
        return error.with_traceback(None)
    return template.literal if template.is_literal else None


def is_insert(scalar: Scalar) -> bool:
    """Return whether ``scalar`` is ``${{ insert }}``."""
    return _INSERT.fullmatch(scalar.text) is not None


def has_expression(node: Node) -> bool:
    """Return whether ``${{`` stands anywhere in ``node``, keys included."""
    if isinstance(node, Scalar):
        return isinstance(node.value, str) and OPEN in node.value
    if isinstance(node, Sequence):
        return any(has_expression(item) for item in node.items)
    return any(has_expression(key) or has_expression(value) for key, value in node)


def plain_text(scalar: Scalar) -> str:
    """Return GitHub's text of a literal scalar: ``3.10`` is ``3.1``, ``'3.10'`` stays, null is empty."""
    value = plain_value(scalar)
    return value if isinstance(value, str) else to_string(value)


def plain_value(node: Node) -> Value:
    """Return a node without expressions as plain data; of double keys the first counts."""
    if isinstance(node, Mapping):
        data: dict[str, Value] = {}
        for key, value in node:
            data.setdefault(plain_text(key), plain_value(value))
        return data
    if isinstance(node, Sequence):
        return [plain_value(item) for item in node.items]
    if isinstance(node.value, str) and OPEN in node.value:
        return _constant(node.value)
    return node.value


def _constant(text: str) -> str:
    """Return the text in ``${{ 'text' }}``; any other text as it is."""
    try:
        template = parse_template(text)
    except ExpressionError:
        return text
    return template.literal if template.is_literal else text
