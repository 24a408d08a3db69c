"""``if:`` of jobs and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.expressions import ExpressionError, condition
from cloche.workflow.model import Condition
from cloche.workflow.templates import OPEN, plain_text

if TYPE_CHECKING:
    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Scalar
    from cloche.workflow.schema import Allowed

IMPLIED = "success()"
"""What GitHub takes where no condition is written."""


def read_condition(scalar: Scalar, allowed: Allowed, findings: Findings) -> Condition:
    """Return the condition that ``scalar`` writes, ``success()`` implied where GitHub implies it.

    Notes what is wrong with it; a condition that is wrong comes back as ``success()``.
    """
    text = scalar.value if isinstance(scalar.value, str) else plain_text(scalar)
    try:
        expression = condition(text, contexts=allowed.contexts, functions=allowed.functions)
    except ExpressionError as error:
        if OPEN not in text:  # what is wrong inside ${{ }} the schema has noted already
            findings.add(error.message, scalar.position, error.hint)
        expression = IMPLIED
    return Condition(expression, scalar.position)
