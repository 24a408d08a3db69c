"""``if:`` of jobs and steps."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cloche.expressions import ExpressionError, condition
from cloche.expressions.parser import MAX_LENGTH
from cloche.workflow.model import Condition
from cloche.workflow.nodes import Scalar
from cloche.workflow.templates import OPEN, interpret, plain_text

if TYPE_CHECKING:
    from cloche.workflow.findings import Findings
    from cloche.workflow.schema import Allowed

IMPLIED = "success()"
"""What GitHub takes where no condition is written."""


def read_condition(scalar: Scalar, allowed: Allowed, findings: Findings) -> Condition:
    """Return the condition that ``scalar`` writes, ``success()`` implied where GitHub implies it.

    Notes what is wrong with it; a condition that is wrong comes back as ``success()``.
    """
    text = scalar.value if isinstance(scalar.value, str) else plain_text(scalar)
    too_long_to_keep = len(text) > MAX_LENGTH
    expression = (_condition.__wrapped__ if too_long_to_keep else _condition)(text, allowed)
    if isinstance(expression, str):
        return Condition(expression, scalar.position)
    # What is wrong inside ${{ }} the schema has noted, but ${{ 'text' }} is no more than text to it.
    if OPEN not in text or isinstance(interpret(scalar, allowed), Scalar):
        findings.add(expression.message, scalar.position, expression.hint)
    return Condition(IMPLIED, scalar.position)


@lru_cache(maxsize=256)
def _condition(text: str, allowed: Allowed) -> str | ExpressionError:
    """Parse, remembering: with aliases one long condition may stand in a file thousands of times."""
    try:
        return condition(text, contexts=allowed.contexts, functions=allowed.functions)
    except ExpressionError as error:
        return error.with_traceback(None)
