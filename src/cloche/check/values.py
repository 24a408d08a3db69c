"""What an expression is worth, as data: for ``cloche eval`` and its rows of JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cloche.check.batch import read_row
from cloche.errors import UsageError
from cloche.expressions import (
    EvaluationError,
    ExpressionError,
    LexingError,
    Scope,
    kind,
    parse,
    parse_template,
    to_string,
)
from cloche.expressions.values import as_float, is_array, is_object
from cloche.workflow.definitions import STEP_CONTEXTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping as MappingOf

    from cloche.expressions import Value

_ARITIES = {
    "hashfiles": "(1,255)",
    "success": "(0,MAX)",
    "failure": "(0,MAX)",
    "always": "(0,0)",
    "cancelled": "(0,0)",
}
_MOST_EXACT = 2.0**53


def eval_row(line: str) -> dict[str, Any]:
    """Answer one row: ``{id, expr | template, context, functions}``.

    The only contexts are those given; ``functions`` gives what functions such as ``success`` return. The answer
    is ``{id, ok, kind, value, str}`` or ``{id, ok: false, phase, message}``. Raises UsageError for a row that
    makes no sense, ValueError for one that is not JSON.
    """
    row = read_row(line)
    if not isinstance(row, dict):
        raise UsageError("a row is an object: {id, expr | template, context, functions}")
    return {"id": plain(row.get("id")), **_outcome(row)}


def _outcome(row: MappingOf[str, Any]) -> dict[str, Any]:
    contexts = row.get("context") or row.get("contexts") or {}
    functions = row.get("functions") or {}
    text = row.get("template", row.get("expr"))
    if not isinstance(text, str) or not isinstance(contexts, dict) or not isinstance(functions, dict):
        return _failed("input", "a row has `expr` or `template`, text; `context` and `functions` are objects")
    phase = "template"
    try:
        if "template" in row:
            parse_template(text, contexts=STEP_CONTEXTS.contexts, functions=STEP_CONTEXTS.functions)
        phase = "parsing"
        value = evaluate(text, contexts, functions, template="template" in row)
    except LexingError as error:
        return _failed(phase if phase == "template" else "lexing", error.message)
    except EvaluationError as error:
        return _failed("evaluation", error.message)
    except ExpressionError as error:
        return _failed(phase, error.message)
    return {"ok": True, "kind": kind(value), "value": plain(value), "str": to_string(value)}


def _failed(phase: str, message: str) -> dict[str, Any]:
    return {"ok": False, "phase": phase, "message": message}


def evaluate(
    text: str, contexts: MappingOf[str, Value], functions: MappingOf[str, Value], *, template: bool
) -> Value:
    """Return what ``text`` is worth where there are these contexts, and functions that return these values.

    ``template`` takes it as a string with ``${{ }}`` in it. Raises ExpressionError.
    """
    names = [f"{name}{_ARITIES.get(name.lower(), '')}" for name in functions]
    read = parse_template if template else parse
    scope = Scope(contexts, {name: _returning(value) for name, value in functions.items()})
    return read(text, contexts=contexts, functions=names).evaluate(scope)


def _returning(value: Value) -> Callable[[list[Value]], Value]:
    return lambda _: value


def plain(value: Value) -> Any:
    """Return a value as JSON can hold it: numbers without a needless point, null for NaN and infinity."""
    if is_object(value):
        return {key: plain(item) for key, item in value.items()}
    if is_array(value):
        return [plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number = as_float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < _MOST_EXACT else number
