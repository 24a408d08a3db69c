"""``action.yml``: reading and checking the file that describes an action."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.expressions import ExpressionError
from cloche.expressions import parse as parse_expression
from cloche.records import record
from cloche.workflow.check import check_tree
from cloche.workflow.conditions import read_condition
from cloche.workflow.definitions_action import ACTION_ROOT, ACTION_STEP_CONDITION, RUNS_CONDITION
from cloche.workflow.findings import Findings
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import OPEN, plain_text
from cloche.workflow.yaml import read

if TYPE_CHECKING:
    from cloche.workflow.nodes import Node
    from cloche.workflow.yaml import Limits

_RUNS_CONDITIONS = ("pre-if", "post-if")


@record
class Action:
    """A checked ``action.yml``: what runs it (``composite``, ``docker``, ``node24``), its inputs, the file."""

    path: str
    root: Node
    using: str
    inputs: tuple[str, ...]


def read_action(text: str | bytes, path: str, *, limits: Limits | None = None) -> Action:
    """Read and check an action's file; ``path`` is how messages name it.

    Raises WorkflowError with everything that is wrong, by position.
    """
    findings = Findings()
    root = read(text, path, limits=limits)
    check_tree(root, ACTION_ROOT, findings)
    findings.check()
    runs = root.get("runs") if isinstance(root, Mapping) else None
    if isinstance(runs, Mapping):  # if not, the schema has refused it
        _check_conditions(runs, findings)
    findings.check()
    using = runs.get("using") if isinstance(runs, Mapping) else None
    inputs = root.get("inputs") if isinstance(root, Mapping) else None
    names = tuple(key.text for key, _ in inputs) if isinstance(inputs, Mapping) else ()
    return Action(path, root, plain_text(using) if isinstance(using, Scalar) else "", names)


def _check_conditions(runs: Mapping, findings: Findings) -> None:
    for key in _RUNS_CONDITIONS:
        condition = runs.get(key)
        if isinstance(condition, Scalar):
            _check_as_it_is(condition, findings)
    steps = runs.get("steps")
    for step in steps.items if isinstance(steps, Sequence) else ():
        condition = step.get("if") if isinstance(step, Mapping) else None
        if isinstance(condition, Scalar):
            read_condition(condition, ACTION_STEP_CONDITION, findings)


def _check_as_it_is(scalar: Scalar, findings: Findings) -> None:
    """Note what is wrong with a condition that implies nothing."""
    text = plain_text(scalar)
    if OPEN in text:  # the schema has parsed it
        return
    try:
        parse_expression(text, contexts=RUNS_CONDITION.contexts, functions=RUNS_CONDITION.functions)
    except ExpressionError as error:
        findings.add(error.message, scalar.position, error.hint)
