"""Steps of a job, from checked nodes to the model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloche.workflow.background import check_background
from cloche.workflow.conditions import read_condition
from cloche.workflow.definitions import STEP_CONDITION
from cloche.workflow.identifiers import Identifiers
from cloche.workflow.model import Step
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import has_expression, plain_text

if TYPE_CHECKING:
    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node

_LOCAL_OR_DOCKER = ("docker://", "./", ".\\", "$/")
_REPOSITORY_ACTION = re.compile(r"[/\\]*[^/\\@]+[/\\]+[^/\\@]+(?:[/\\][^@]*)?@[^@]+")


def read_steps(node: Node | None, findings: Findings) -> tuple[Step, ...]:
    """Read the steps of one job. Notes ids, conditions and ``uses`` that are none."""
    if not isinstance(node, Sequence):
        return ()
    ids = Identifiers()
    mappings = [item for item in node.items if isinstance(item, Mapping)]
    return tuple(_step(index, item, ids, findings) for index, item in enumerate(mappings, start=1))


def _step(index: int, node: Mapping, ids: Identifiers, findings: Findings) -> Step:
    uses = scalar_at(node, "uses")
    if uses is not None:
        _check_uses(uses, findings)
    condition = scalar_at(node, "if")
    with_ = node.get("with")
    id_ = _id(node, ids, findings)
    check_background(node, id_, ids.spelled, findings)
    read_steps(node.get("parallel"), findings)  # notes what is wrong; nobody carries them out yet
    return Step(
        index=index,
        position=node.position,
        id=id_,
        name=scalar_at(node, "name"),
        condition=read_condition(condition, STEP_CONDITION, findings) if condition else None,
        run=scalar_at(node, "run"),
        uses=uses,
        with_=with_ if isinstance(with_, Mapping) else None,
        env=node.get("env"),
        shell=scalar_at(node, "shell"),
        working_directory=scalar_at(node, "working-directory"),
        continue_on_error=scalar_at(node, "continue-on-error"),
        timeout_minutes=scalar_at(node, "timeout-minutes"),
    )


def scalar_at(node: Mapping, key: str) -> Scalar | None:
    """Return the value of ``key`` if it is a scalar; anything else the schema has refused already."""
    value = node.get(key)
    return value if isinstance(value, Scalar) else None


def _id(node: Mapping, ids: Identifiers, findings: Findings) -> str:
    scalar = scalar_at(node, "id")
    text = plain_text(scalar) if scalar else ""
    if scalar and text and not has_expression(scalar) and (problem := ids.add(text)):
        findings.add(problem, scalar.position)
    return text


def _check_uses(uses: Scalar, findings: Findings) -> None:
    text = plain_text(uses)
    if has_expression(uses) or not text:  # the schema has refused it
        return
    if not text.startswith(_LOCAL_OR_DOCKER) and not _REPOSITORY_ACTION.fullmatch(text):
        hint = "for an action of this repository write ./path/to/action"
        message = f"Expected format {{org}}/{{repo}}[/path]@ref. Actual '{text}'"
        findings.add(message, uses.position, hint)
