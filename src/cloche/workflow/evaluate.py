"""Nodes to plain data, when their expressions can be evaluated.

Every error is an EvaluationError with the position of the scalar that holds it; what a function of the scope
raises (Pending) passes through.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING

from cloche.expressions import EvaluationError, ExpressionError, Value, parse_template, to_string
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import OPEN, is_insert

if TYPE_CHECKING:
    from cloche.errors import Position
    from cloche.expressions import Scope
    from cloche.workflow.nodes import Node


def evaluate_node(node: Node, scope: Scope) -> Value:
    """Return the value of ``node``: numbers are floats, a scalar that is one expression has its value.

    ``env: {V: 3.10}`` gives the number 3.1, as on GitHub; ``'3.10'`` stays text.
    """
    if isinstance(node, Scalar):
        return _scalar(node, scope)
    if isinstance(node, Sequence):
        return [evaluate_node(item, scope) for item in node.items]
    return _mapping(node, scope)


def scalar_text(node: Scalar, scope: Scope) -> str:
    """Return ``node`` where GitHub takes text: null is empty, ``3.10`` is ``3.1``, true is ``true``.

    EvaluationError if it comes to an array or an object.
    """
    return _text(evaluate_node(node, scope), node.position)


def text_mapping(node: Node, scope: Scope) -> dict[str, str]:
    """Return ``env``, ``with`` or ``outputs`` as names and texts. EvaluationError if it is not that."""
    value = evaluate_node(node, scope)
    if not isinstance(value, MappingOf):
        raise _unexpected(value, node.position)
    positions = _positions(node)
    return {key: _text(item, positions.get(key, node.position)) for key, item in value.items()}


def boolean(node: Scalar, scope: Scope) -> bool:
    """Return ``node`` where GitHub takes a boolean only. EvaluationError for anything else."""
    value = evaluate_node(node, scope)
    if not isinstance(value, bool):
        raise _unexpected(value, node.position)
    return value


def number(node: Scalar, scope: Scope) -> float:
    """Return ``node`` where GitHub takes a number only. EvaluationError for anything else."""
    value = evaluate_node(node, scope)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unexpected(value, node.position)
    return float(value)


def _scalar(node: Scalar, scope: Scope) -> Value:
    if not isinstance(node.value, str) or OPEN not in node.value:
        return node.value
    try:
        return parse_template(node.value).evaluate(scope)
    except ExpressionError as error:
        error.position = error.position or node.position
        raise


def _mapping(node: Mapping, scope: Scope) -> dict[str, Value]:
    data: dict[str, Value] = {}
    for key, item in node:
        if is_insert(key):
            raise _error("`${{ insert }}` is not carried out by Cloche yet", key.position)
        name = scalar_text(key, scope)
        if name in data:
            raise _error(f"'{name}' is already defined", key.position)
        data[name] = evaluate_node(item, scope)
    return data


def _positions(node: Node) -> dict[str, Position]:
    """Return where the value of each key stands that is written without an expression."""
    return {key.text: item.position for key, item in node} if isinstance(node, Mapping) else {}


def _text(value: Value, position: Position) -> str:
    if isinstance(value, MappingOf) or (isinstance(value, SequenceOf) and not isinstance(value, str)):
        raise _unexpected(value, position)
    return to_string(value)


def _unexpected(value: Value, position: Position) -> EvaluationError:
    """GitHub's words for a value of the wrong kind."""
    if isinstance(value, MappingOf):
        return _error("A mapping was not expected", position)
    if isinstance(value, SequenceOf) and not isinstance(value, str):
        return _error("A sequence was not expected", position)
    return _error(f"Unexpected value '{to_string(value)}'", position)


def _error(message: str, position: Position) -> EvaluationError:
    error = EvaluationError(message)
    error.position = position
    return error
