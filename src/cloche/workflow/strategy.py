"""What GitHub checks of a ``strategy`` while it is still a file: what holds no expression yet to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.workflow.check import check_tree
from cloche.workflow.definitions import STRATEGY
from cloche.workflow.findings import Findings
from cloche.workflow.matrix import NO_VECTOR, MatrixError, TooManyLegsError, empty_vector, expand
from cloche.workflow.nodes import Mapping, Sequence
from cloche.workflow.templates import has_expression, plain_text, plain_value

if TYPE_CHECKING:
    from cloche.errors import Position
    from cloche.workflow.matrix import Problem
    from cloche.workflow.nodes import Node


def check_strategy(node: Node | None, job: str, findings: Findings) -> None:
    """Note what is wrong with the matrix of a ``strategy`` that the schema has passed."""
    matrix = node.get("matrix") if isinstance(node, Mapping) else None
    if node is None or not isinstance(matrix, Mapping) or not _schema_passes(node):
        return
    if has_expression(node):
        _check_vectors(matrix, findings)
        return
    plain = plain_value(matrix)
    try:
        expand(plain if isinstance(plain, dict) else {}, job=job)
    except TooManyLegsError as error:
        findings.add(error.message, node.position, error.hint)
    except MatrixError as error:
        for problem in error.problems:
            findings.add(problem.message, _position(matrix, problem))


def _schema_passes(strategy: Node) -> bool:
    again = Findings()
    check_tree(strategy, STRATEGY, again)
    return not again


def _check_vectors(matrix: Mapping, findings: Findings) -> None:
    """Note the two things that are certain whatever the expressions come to."""
    has_vector = False
    for key, value in matrix:
        if key.text == "exclude":
            continue
        empty = isinstance(value, Sequence) and not value.items
        has_vector = has_vector or key.text != "include" or not empty
        if empty and key.text != "include":
            findings.add(empty_vector(key.text), value.position)
    if not has_vector:
        findings.add(NO_VECTOR, matrix.position)


def _position(node: Node, problem: Problem) -> Position:
    position = node.position
    for place in problem.path:
        if isinstance(node, Sequence) and isinstance(place, int):
            node = node.items[place]
            position = node.position
        elif isinstance(node, Mapping):
            key, node = next((key, value) for key, value in node if plain_text(key) == place)
            position = key.position if problem.at_key else node.position
    return position
