"""The jobs of a run: in ``needs`` order, side by side where they may, each leg in a root of its own.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobs. What a job comes to for
those that need it, and which of them run then, follows the page's ``needs`` and status functions.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cloche.execution.contexts import NeedResult, strategy_context
from cloche.execution.control import JobControl
from cloche.execution.evaluation import contexts_used, holds, job_functions
from cloche.execution.legs import Leg
from cloche.execution.publisher import JobPublisher
from cloche.execution.results import JobResult
from cloche.execution.serving import legs_of
from cloche.expressions import ExpressionError, Scope, to_string
from cloche.tasks import finish
from cloche.units import format_duration
from cloche.workflow.evaluate import boolean, number, scalar_text
from cloche.workflow.graph import ancestors
from cloche.workflow.matrix import MatrixError, display_name, leg_name

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping, Sequence

    from cloche.errors import GuestError
    from cloche.events import Conclusion
    from cloche.execution.control import Timing
    from cloche.execution.legs import RunSetup
    from cloche.expressions import Value
    from cloche.workflow import matrix
    from cloche.workflow.model import Job


def combined(conclusions: Sequence[Conclusion]) -> Conclusion:
    """Return what several conclusions come to: the worst of those that are not ``skipped``."""
    for conclusion in ("failure", "cancelled", "success"):
        if conclusion in conclusions:
            return conclusion
    return "skipped"


class JobGraph:
    """Runs the jobs of one run. ``results`` grows as they end."""

    def __init__(
        self, run: RunSetup, jobs: Mapping[str, Job], chosen: Mapping[str, str], timing: Timing
    ) -> None:
        self._run = run
        self._jobs = jobs
        self._chosen = chosen
        self._timing = timing
        one = run.guest is None or run.checkpoints is not None
        self._places = asyncio.Semaphore(1 if one or run.guest is None else max(run.guest.info.cpus, 1))
        self._place = run.resume.place if run.resume else None
        self._resumed = asyncio.Event()
        if self._place is None:
            self._resumed.set()
        self._ended = {job: asyncio.Event() for job in jobs}
        self._needs: dict[str, NeedResult] = {}
        self._active: dict[JobControl, Job] = {}
        self._cancelled = False
        self._failed = False
        self._over = False
        self._lost: GuestError | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._run.output.stop = self.stop
        self.results: list[JobResult] = []
        self.done: list[JobResult] = []

    @property
    def finished(self) -> list[str]:
        """The jobs of which nothing is left to run."""
        return list(self._needs)

    async def run(self) -> Conclusion:
        """Run all jobs to their ends and return what they come to together."""
        jobs = asyncio.create_task(_together(self._job(job) for job in self._jobs.values()))
        try:
            await asyncio.wait({jobs}, timeout=self._run.time_limit)
            if not jobs.done():
                self._time_is_up(self._run.time_limit or 0.0)
            await jobs
        finally:
            if self._expiry:
                self._expiry.cancel()
            jobs.cancel()
            await finish(asyncio.wait({jobs}))
            if not jobs.cancelled():
                jobs.exception()  # seen: what is raised here outweighs it
        if self._failed:
            return "failure"
        if self._cancelled and any(result.conclusion == "cancelled" for result in self.results):
            return "cancelled"
        return combined([_counted(result) for result in self.results])

    def cancel(self, reason: str | None = None) -> None:
        """Cancel every job whose ``if`` does not hold for a cancelled run, as GitHub does.

        What still runs then has as long as what still runs in a cancelled job. ``reason`` is for those who wonder.
        """
        if not self._cancelled:
            self._cancelled = True
            self._expiry = asyncio.get_running_loop().call_later(self._timing.cancel, self._expire)
        for control, job in list(self._active.items()):
            if not self._is_still_wanted(job):
                control.cancel(reason)

    def stop(self, reason: str) -> None:
        """Cancel the run for a ``reason`` of Cloche's own, and have it fail."""
        self._failed = True
        self._run.publisher.notice("error", reason)
        self.cancel(reason)

    def lose(self, error: GuestError) -> None:
        """Tell every job that the guest is gone."""
        self._lost = self._lost or error
        for control in self._active:
            control.lose(error)

    def _expire(self) -> None:
        self._over = True
        for control in self._active:
            control.expire()

    def _time_is_up(self, limit: float) -> None:
        self._run.publisher.limit_reached("time", limit, limit)
        self.stop(f"The run has exceeded the maximum execution time of {format_duration(limit)}.")

    async def _job(self, job: Job) -> None:
        for need in job.needs:
            await self._ended[need].wait()
        results = self._recorded(job) or await self._results_of(job)
        if self._place and self._place.job == job.id:
            self._resumed.set()
        self.results += results
        outputs = {name: value for result in results for name, value in result.outputs.items()}
        self._needs[job.id] = NeedResult(combined([_counted(result) for result in results]), outputs)
        self._ended[job.id].set()

    def _recorded(self, job: Job) -> list[JobResult]:
        """Return how a job ended before the cut that the run goes on from; empty for any other."""
        resume = self._run.resume
        if resume is None or job.id not in resume.finished:
            return []
        results = [result for result in resume.results if result.job == job.id]
        self.done += results
        return results

    async def _results_of(self, job: Job) -> list[JobResult]:
        try:
            begun = self._place is not None and self._place.job == job.id
            if not begun and not self._is_wanted(job):
                return self._not_run(job, "cancelled" if self._cancelled else "skipped")
            legs, places, fail_fast = self._legs(job)
        except (ExpressionError, MatrixError) as error:
            self._run.publisher.notice("error", f"Job '{job.id}': {error}")
            return self._not_run(job, "failure")
        if not legs:
            return self._not_run(job, "skipped")
        results = self._recorded_legs(legs)

        async def carry_out(leg: Leg) -> None:
            if leg.resume is None:
                await self._resumed.wait()
            async with places, self._places:
                self._resumed.set()
                result = await leg.carry_out()
            del self._active[leg.control]
            results.append(result)
            self.done.append(result)
            if fail_fast and _counted(result) == "failure":
                for sibling in legs:
                    sibling.control.cancel()
            self._stop_on_failure(result)

        await _together(carry_out(leg) for leg in legs if leg.control in self._active)
        return results

    def _recorded_legs(self, legs: Sequence[Leg]) -> list[JobResult]:
        """Return how legs ended before the cut that the run goes on from; they are not active any more."""
        results = []
        resume = self._run.resume
        for leg in legs if resume else ():
            if resume and (result := resume.result(leg.job.id, leg.publisher.leg)) is not None:
                del self._active[leg.control]
                results.append(result)
        self.done += results
        return results

    def _stop_on_failure(self, result: JobResult) -> None:
        """Cancel the other jobs, if the run is to stop at the first failure and there are others."""
        if not self._run.stop_on_failure or _counted(result) != "failure" or self._cancelled:
            return
        left = [job for job, ended in self._ended.items() if job != result.job and not ended.is_set()]
        if left or self._active:
            self.stop(f"Job '{result.name}' failed: the others are cancelled (stop_on_failure).")

    def _is_wanted(self, job: Job) -> bool:
        """Return whether the job's ``if`` holds, and there is time left for it. ExpressionError."""
        if self._over:
            return False
        needs = {need: self._needs[need] for need in job.needs}
        above = {name: self._needs[name] for name in ancestors(self._jobs, job.id)}
        functions = job_functions(needs, above, cancelled=self._cancelled)
        return holds(job.condition.expression, Scope(self._contexts(job), functions))

    def _is_still_wanted(self, job: Job) -> bool:
        try:
            return self._is_wanted(job)
        except ExpressionError:
            return False

    def _contexts(self, job: Job) -> dict[str, Value]:
        """Return what expressions see of a job before it has legs."""
        needs: dict[str, Value] = {need: self._needs[need].as_value() for need in job.needs}
        return {**self._run.contexts, "needs": needs}

    def _legs(self, job: Job) -> tuple[list[Leg], asyncio.Semaphore, bool]:
        """Return the legs, how many may run side by side, and whether one that fails cancels the others."""
        contexts = self._contexts(job)
        strategy = job.strategy
        if strategy is None or strategy.matrix is None:
            return [self._leg(job, contexts, strategy_context())], asyncio.Semaphore(1), False
        scope = Scope(contexts)
        fail_fast = boolean(strategy.fail_fast, scope) if strategy.fail_fast else True
        most = int(number(strategy.max_parallel, scope)) if strategy.max_parallel else 0
        values = legs_of(job, strategy.matrix, scope, self._chosen)
        names = _distinct([leg_name(leg) for leg in values])
        legs = []
        for index, (leg, name) in enumerate(zip(values, names, strict=True)):
            about = strategy_context(
                fail_fast=fail_fast, index=index, total=len(values), max_parallel=most or None
            )
            legs.append(self._leg(job, contexts, about, leg, name))
        return legs, asyncio.Semaphore(most if most > 0 else max(len(legs), 1)), fail_fast

    def _leg(
        self,
        job: Job,
        contexts: Mapping[str, Value],
        strategy: Mapping[str, Value],
        leg: matrix.Leg | None = None,
        name: str | None = None,
    ) -> Leg:
        control = JobControl(self._timing)
        if self._lost:
            control.lose(self._lost)
        self._active[control] = job
        own: dict[str, Value] = {"needs": contexts["needs"], "strategy": strategy, "matrix": leg}
        title = job_name(job, {**contexts, **own}, leg)
        publisher = JobPublisher(self._run.publisher, job.id, name, title)
        root_name = job.id if leg is None else f"{job.id}.{to_string(strategy['job-index'])}"
        return Leg(self._run, job, own, control, publisher, root_name)

    def _not_run(self, job: Job, conclusion: Conclusion) -> list[JobResult]:
        name = job_name(job, self._contexts(job), None)
        JobPublisher(self._run.publisher, job.id, None, name).finished(conclusion, {}, 0.0)
        self.done.append(JobResult(job.id, None, name, conclusion))
        return self.done[-1:]


def job_name(job: Job, contexts: Mapping[str, Value], leg: matrix.Leg | None) -> str:
    """Return a job's name as GitHub shows it: a name that does not speak of the matrix gets the leg's values.

    Where its expressions cannot be evaluated, the name is as written.
    """
    if job.name is None:
        return display_name(job.id, leg) if leg else job.id
    try:
        name = scalar_text(job.name, Scope(contexts)) or job.id
    except ExpressionError:
        name = job.name.text
    return display_name(name, leg) if leg and "matrix" not in contexts_used(job.name) else name


def _counted(result: JobResult) -> Conclusion:
    """Return what a leg counts for: with ``continue-on-error`` a failure is none."""
    return "success" if result.conclusion == "failure" and result.continue_on_error else result.conclusion


def _distinct(names: list[str]) -> list[str]:
    """Return names that tell the legs apart: what shows no value, or the same ones, gets its number."""
    return [
        name if name and names.count(name) == 1 else f"{name} #{index}".lstrip()
        for index, name in enumerate(names, start=1)
    ]


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do several things at once; the first exception ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
