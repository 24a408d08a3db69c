"""The ``${{ }}`` language of GitHub Actions: parsing, evaluation, templates and conditions. Pure."""

from cloche.expressions.errors import (
    EvaluationError,
    ExpressionError,
    LexingError,
    ParsingError,
    Pending,
)
from cloche.expressions.evaluator import Scope
from cloche.expressions.expression import Expression, parse
from cloche.expressions.names import CONTEXTS, STATUS_FUNCTIONS
from cloche.expressions.templates import Template, condition, parse_template
from cloche.expressions.values import (
    CaseSensitiveDict,
    Value,
    equals,
    kind,
    to_number,
    to_string,
    truthy,
)

__all__ = [
    "CONTEXTS",
    "STATUS_FUNCTIONS",
    "CaseSensitiveDict",
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "LexingError",
    "ParsingError",
    "Pending",
    "Scope",
    "Template",
    "Value",
    "condition",
    "equals",
    "kind",
    "parse",
    "parse_template",
    "to_number",
    "to_string",
    "truthy",
]
