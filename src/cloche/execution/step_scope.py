"""One step while it runs: what it is, what its expressions see, whom it tells."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar

from cloche.execution.evaluation import holds, step_functions
from cloche.expressions import to_string
from cloche.records import record
from cloche.workflow.evaluate import scalar_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from cloche.execution.control import JobControl, Why
    from cloche.execution.evaluation import Evaluator
    from cloche.execution.job_state import JobSetup, JobState
    from cloche.execution.planned import Kind
    from cloche.execution.publisher import StepPublisher
    from cloche.expressions import Scope, Value
    from cloche.vm.guest import ExecSpec, JobRoot
    from cloche.workflow.model import Step
    from cloche.workflow.nodes import Scalar

T = TypeVar("T")


class StepError(Exception):
    """What keeps a step from running; the message is for the user, and the step fails."""


@record(frozen=False)
class StepScope:
    """A step in its job.

    ``kind`` is what it is for. ``env`` is the step's own, evaluated; ``action`` is ``github.action``; ``extra``
    adds to the ``github`` context; ``minutes`` is the step's time limit, ``program`` what was started last.
    """

    step: Step
    setup: JobSetup
    state: JobState
    control: JobControl
    root: JobRoot
    evaluator: Evaluator
    publisher: StepPublisher
    action: str
    kind: Kind = "step"
    name: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Value] = field(default_factory=dict)
    minutes: float | None = None
    program: ExecSpec | None = None

    @property
    def seconds(self) -> float | None:
        """The step's time limit in seconds."""
        return None if self.minutes is None else self.minutes * 60

    @property
    def github(self) -> dict[str, Value]:
        """The ``github`` context of this step."""
        return {**self.setup.github, "action": self.action, **self.extra}

    async def evaluate(self, work: Callable[[Scope], T]) -> T:
        """Return what ``work`` makes of what the step's expressions see. EvaluationError, GuestLost."""
        contexts = {**self.state.contexts(self.setup, self.env), "github": self.github}
        return await self.evaluator.evaluate(work, contexts, step_functions(self.state.status))

    async def text(self, node: Scalar | None) -> str | None:
        """Return the text of a scalar, ``None`` if there is none."""
        return None if node is None else await self.evaluate(lambda scope: scalar_text(node, scope))

    async def is_wanted(self) -> bool:
        """Return whether the step's ``if`` holds, as the job stands now; clean-up is always wanted."""
        if self.kind == "cleanup":
            return True
        condition = self.step.condition.expression if self.step.condition else "success()"
        return await self.evaluate(lambda scope: holds(condition, scope))

    async def watch(self, work: asyncio.Task[Any]) -> Why:
        """Wait until ``work`` ends, the step's time is up, or the job is cancelled and the step not wanted."""
        excused = self.state.status == "cancelled"
        to_its_end = self.kind == "cleanup"
        return await self.control.watch(
            work, self.seconds, self.is_still_wanted, excused=excused, to_its_end=to_its_end
        )

    async def is_still_wanted(self) -> bool:
        """Return whether the step's ``if`` holds now that the job is cancelled."""
        self.state.status = "cancelled"
        return await self.is_wanted()

    def tell_timed_out(self) -> None:
        """Tell, in the runner's words, that the step's time was up."""
        minutes = to_string(self.minutes)
        self.publisher.annotate("error", f"The action '{self.name}' has timed out after {minutes} minutes.")

    def tell_cancelled(self) -> None:
        """Tell, in the runner's words, that the step was stopped, and once why, where that is not plain."""
        reason, self.control.reason = self.control.reason, None
        for message in filter(None, (reason, "The operation was canceled.")):
            self.publisher.annotate("error", message)
