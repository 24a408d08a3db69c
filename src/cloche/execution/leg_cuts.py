"""What a cut says of a run: the run's own part, and that of the leg whose step comes next."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cloche.execution.checkpoint import Checkpoint, written_request, written_state
from cloche.execution.resume import Place
from cloche.execution.sameness import parts

if TYPE_CHECKING:
    from cloche.execution.cuts import Cuts
    from cloche.execution.legs import Leg
    from cloche.execution.run import Run
    from cloche.workflow.model import Step


class RunCuts:
    """Makes the cuts of ``run``."""

    def __init__(self, run: Run, cuts: Cuts) -> None:
        self._run = run
        self._cuts = cuts
        self._request = written_request(run.request)

    def of(self, leg: Leg) -> LegCuts:
        """Return what makes them in a leg."""
        return LegCuts(self, self._cuts, leg)

    def checkpoint(self, leg: Leg, step: Step, name: str) -> Checkpoint:
        """Return where the run is, ``step`` of ``leg`` being next; ``name`` is what it is shown as."""
        run, jobs = self._run, self._run.jobs
        ended = tuple(jobs.done) if jobs else ()
        finished = tuple(jobs.finished) if jobs else ()
        place = Place(
            job=leg.job.id,
            leg=leg.publisher.leg,
            job_name=leg.publisher.name,
            step=step.index,
            step_id=step.id,
            step_name=name,
            root=leg.guest_name,
        )
        another = any(result.job == leg.job.id for result in ended)  # leg of it has run all steps
        steps = len(leg.job.steps) if another else max(step.index - 1 - len(run.request.setups), 0)
        return Checkpoint(
            run_id=run.publisher.run_id,
            origin=run.origin,
            at=run.publisher.clock(),
            workflow=run.workflow.display_name,
            path=run.workflow.path,
            request=self._request,
            place=place,
            elapsed=time.monotonic() - leg.began,
            state=written_state(leg.state),
            results=ended,
            finished=finished,
            before=parts(run.workflow, finished, leg.job.id, steps),
            masks=run.publisher.masker.saved(),
        )


class LegCuts:
    """Makes cuts before steps of one leg: a StepCuts."""

    def __init__(self, run: RunCuts, cuts: Cuts, leg: Leg) -> None:
        self._run = run
        self._cuts = cuts
        self._leg = leg

    async def before(self, step: Step, name: str) -> None:
        """See StepCuts."""
        if self._cuts.wanted(self._leg.state.status):
            await self._cuts.before(self._run.checkpoint(self._leg, step, name))

    def after(self, *, failed: bool) -> None:
        """See StepCuts."""
        self._cuts.after(failed=failed)
