"""All that a job runs: set-up scripts, its steps, clean-up scripts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from cloche.records import record
from cloche.workflow.model import Step
from cloche.workflow.nodes import Scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.config import Command

Kind = Literal["setup", "step", "cleanup"]


@record
class Planned:
    """A step, and what it is for."""

    step: Step
    kind: Kind = "step"


def all_steps(
    steps: Sequence[Step], setups: Sequence[Command], cleanups: Sequence[Command]
) -> tuple[Planned, ...]:
    """Return what a job runs, numbered through from 1."""
    planned = (
        *(Planned(_script(command), "setup") for command in setups),
        *map(Planned, steps),
        *(Planned(_script(command), "cleanup") for command in cleanups),
    )
    return tuple(
        replace(one, step=replace(one.step, index=index)) if one.step.index != index else one
        for index, one in enumerate(planned, start=1)
    )


def _script(command: Command) -> Step:
    name, script = (Scalar(text, text, command.position, quoted=True) for text in (command.name, command.run))
    return Step(0, command.position, name=name, run=script)
