"""The step loop: the steps of one job, one after the other, in the one root it was given.

Nothing here or below knows where that root comes from. The order in which a step's parts are evaluated, and what
a mistake in each of them means, follow actions/runner.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.execution.evaluation import Evaluator
from cloche.execution.publisher import StepResult
from cloche.execution.run_step import run_script
from cloche.execution.step_scope import StepError, StepScope
from cloche.expressions import ExpressionError
from cloche.workflow.evaluate import boolean, number, text_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.execution.control import JobControl
    from cloche.execution.job_state import JobSetup, JobState
    from cloche.execution.planned import Planned
    from cloche.execution.publisher import JobPublisher
    from cloche.execution.visits import Visits
    from cloche.vm.guest import JobRoot
    from cloche.workflow.model import Step

_FAILED = StepResult("failure", "failure")
_SKIPPED = StepResult("skipped", "skipped")
_CANCELLED = StepResult("cancelled", "cancelled")
_MAX_NAME = 1000
_NO_TIMEOUT = "An error occurred when attempting to determine the step timeout."
_NO_CONTINUE = (
    "The step failed and an error occurred when attempting to determine whether to continue on error."
)


class StepCuts(Protocol):
    """Keeps the run as it is before a step, while no step is under way."""

    async def before(self, step: Step, name: str) -> None:
        """Keep it, unless that is not wanted."""

    def after(self, *, failed: bool) -> None:
        """Hear how that step ended."""


class StepLoop:
    """Carries out what is planned of one job in ``root``, changing ``state``.

    ``first`` is the number of the step to begin with: those before have run.
    """

    def __init__(
        self,
        root: JobRoot,
        planned: Sequence[Planned],
        setup: JobSetup,
        state: JobState,
        *,
        control: JobControl,
        publisher: JobPublisher,
        cut: StepCuts | None = None,
        first: int = 1,
    ) -> None:
        self._root = root
        self._planned = planned
        self._setup = setup
        self._state = state
        self._control = control
        self._publisher = publisher
        self._cut = cut
        self._first = first
        self._evaluator = Evaluator(root, setup.workspace)
        self._actions = _action_names(planned)

    async def run(self) -> None:
        """Run all steps whose conditions hold, whatever becomes of them; ``state`` tells how it went."""
        try:
            for planned in self._planned[self._first - 1 :]:
                if self._control.cancelled:
                    self._state.status = "cancelled"
                await self._run(self._scope(planned))
        finally:
            if self._setup.visits:
                self._setup.visits.left(self._root)
        if self._control.cancelled:
            self._state.status = "cancelled"

    def _scope(self, planned: Planned) -> StepScope:
        step, setup = planned.step, self._setup
        if planned.kind != "step":  # whose scripts are not the workflow's, and know nothing of its defaults
            setup = replace(setup, shell=None, working_directory=None)
        return StepScope(
            step=step,
            kind=planned.kind,
            setup=setup,
            state=self._state,
            control=self._control,
            root=self._root,
            evaluator=self._evaluator,
            publisher=self._publisher.step(step.index, step.id),
            action=self._actions[step.index],
            name=self._default_name(step),
        )

    async def _run(self, scope: StepScope) -> None:
        started = time.monotonic()
        result = _CANCELLED
        try:
            result = await self._result(scope)
        except GuestError as caught:
            error = self._control.lost or caught
            if isinstance(error, GuestLost | GuestTimeout):
                self._state.lost = error
            scope.publisher.annotate("error", f"The step cannot go on: {error.message}")
            result = _FAILED
        finally:
            if self._cut is not None:
                self._cut.after(failed=result.conclusion in ("failure", "cancelled"))
            scope.publisher.finished(scope.name, self._setup.vm_id, result, time.monotonic() - started)
        sound = self._state.status == "success"
        self._state.remember(scope.step.id, result.outputs, result.outcome, result.conclusion)
        if scope.kind == "setup" and result.conclusion != "success":
            self._state.unprepared = True
        if sound and self._state.status == "failure" and not self._state.lost and self._setup.visits:
            await self._ask_in(self._setup.visits, scope)

    async def _ask_in(self, visits: Visits, scope: StepScope) -> None:
        try:
            await visits.failed(scope)
        except GuestError as caught:
            self._state.lost = self._control.lost or caught

    async def _result(self, scope: StepScope) -> StepResult:
        if self._state.lost:
            return _CANCELLED
        if self._state.unprepared and scope.kind != "cleanup":
            return _SKIPPED
        try:
            scope.env = await self._env(scope)
            scope.name = await self._name(scope)
            if not await scope.is_wanted():
                return _SKIPPED
        except ExpressionError as error:
            await self._start(scope)
            scope.publisher.annotate("error", str(error))
            return _FAILED
        await self._start(scope)
        scope.minutes = await self._minutes(scope)
        if self._setup.visits:
            await self._setup.visits.at(scope)
        try:
            result = await _carry_out(scope)
        except (StepError, ExpressionError) as error:
            scope.publisher.annotate("error", str(error))
            result = _FAILED
        return await self._forgiven(scope, result)

    async def _start(self, scope: StepScope) -> None:
        if self._cut is not None and not self._control.cancelled:
            await self._cut.before(scope.step, scope.name)
        scope.publisher.started(scope.name)
        steps = len(self._planned)
        self._publisher.run.log(f"Executing step {scope.step.index}/{steps}: {scope.name}")

    @staticmethod
    async def _env(scope: StepScope) -> dict[str, str]:
        node = scope.step.env
        return await scope.evaluate(lambda known: text_mapping(node, known)) if node else {}

    async def _name(self, scope: StepScope) -> str:
        """Return the name with its expressions evaluated, as written where that cannot be."""
        step = scope.step
        try:
            name = await scope.text(step.name)
            text = name or f"Run {(await scope.text(step.run or step.uses) or '').lstrip()}"
        except ExpressionError:
            return scope.name
        return self._first_line(text)

    def _default_name(self, step: Step) -> str:
        node = step.run or step.uses
        text = step.name.text if step.name else f"Run {node.text.lstrip() if node else ''}"
        return self._first_line(text)

    def _first_line(self, text: str) -> str:
        """Return what a display can take of a name; masked before it is cut."""
        line = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0].rstrip()
        return self._setup.masker.mask(line)[:_MAX_NAME]

    @staticmethod
    async def _minutes(scope: StepScope) -> float | None:
        node = scope.step.timeout_minutes
        if node is None:
            timing = scope.control.timing
            seconds = timing.cleanup if scope.kind == "cleanup" else scope.setup.step_timeout
            return None if seconds is None else seconds / 60
        try:
            minutes = await scope.evaluate(lambda known: number(node, known))
        except ExpressionError as error:
            for message in (_NO_TIMEOUT, str(error)):
                scope.publisher.annotate("error", message)
            return None
        return minutes if minutes > 0 else None

    @staticmethod
    async def _forgiven(scope: StepScope, result: StepResult) -> StepResult:
        """Apply ``continue-on-error`` to a step that failed."""
        node = scope.step.continue_on_error
        if node is None or result.outcome != "failure":
            return result
        try:
            forgiven = await scope.evaluate(lambda known: boolean(node, known))
        except ExpressionError as error:
            for message in (_NO_CONTINUE, str(error)):
                scope.publisher.annotate("error", message)
            return result
        return replace(result, conclusion="success") if forgiven else result


async def _carry_out(scope: StepScope) -> StepResult:
    if scope.step.run is not None:
        return await run_script(scope)
    from cloche.execution.checkout_step import run_checkout  # the one action there is, and not all need it

    return await run_checkout(scope)


def _action_names(planned: Sequence[Planned]) -> dict[int, str]:
    """Return ``github.action`` of each step: its id, or ``__run``, ``__run_2``, ``__actions_checkout``."""
    seen: Counter[str] = Counter()
    names = {}
    for one in planned:
        step = one.step
        run = "__run" if one.kind == "step" else f"__{one.kind}"
        name = run if step.run is not None else "__actions_checkout"
        seen[name] += not step.id
        names[step.index] = step.id or (name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
