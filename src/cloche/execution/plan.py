"""What is settled before any VM is asked for: which jobs run, and on which image.

Whatever a workflow asks for that cannot be had is found here, with its place in the file.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from cloche.errors import Diagnostic, UsageError, WorkflowError
from cloche.execution.evaluation import contexts_used, holds
from cloche.execution.serving import NoImageError, legs_of, serving
from cloche.execution.sizes import asks, shown
from cloche.expressions import ExpressionError, Scope, parse
from cloche.records import record
from cloche.workflow.evaluate import evaluate_node
from cloche.workflow.graph import ancestors
from cloche.workflow.matrix import MatrixError
from cloche.workflow.runson import RunsOnError, labels, position_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.errors import Position
    from cloche.execution.evaluation import Function
    from cloche.execution.request import RunRequest
    from cloche.execution.sizes import Ask
    from cloche.expressions import Value
    from cloche.workflow.model import Job, Workflow


@record
class Plan:
    """The jobs to run, in file order, and the VM that serves them all.

    ``image`` is ``None`` if no job will need a VM. ``remarks`` are for the user to know.
    """

    jobs: Mapping[str, Job]
    image: str | None
    cpus: int
    memory: int
    remarks: tuple[str, ...] = ()


def make_plan(workflow: Workflow, request: RunRequest, contexts: Mapping[str, Value]) -> Plan:
    """Settle what to run. ``contexts`` are those known before any job: ``github``, ``vars``, ``inputs``.

    Raises UsageError for jobs and legs that are not there, WorkflowError for what cannot be carried out.
    """
    jobs = _selected(workflow, request.jobs)
    check = _Check(request, contexts)
    for job in jobs.values():
        if not _never_runs(job, contexts):
            check.job(job)
    if check.diagnostics:
        raise WorkflowError(tuple(check.diagnostics))
    if missing := [f"{key}: {value}" for key, value in request.matrix.items() if key not in check.matched]:
        raise UsageError(
            f"no leg of any job has {' and '.join(missing)}", hint="see `strategy.matrix` of the jobs"
        )
    image = next(iter(check.images), None)
    return Plan(jobs, image, check.most("cpus"), check.most("memory"), tuple(check.remarks))


def _selected(workflow: Workflow, wanted: tuple[str, ...]) -> dict[str, Job]:
    if unknown := [name for name in wanted if name not in workflow.jobs]:
        known = ", ".join(workflow.jobs)
        raise UsageError(f"{workflow.path} has no job {unknown[0]!r}", hint=f"its jobs: {known}")
    kept = set(wanted or workflow.jobs)
    for name in wanted:
        kept.update(ancestors(workflow.jobs, name))
    return {name: job for name, job in workflow.jobs.items() if name in kept}


def _never_runs(job: Job, contexts: Mapping[str, Value]) -> bool:
    """Return whether the job's ``if`` is false whatever becomes of the jobs before it."""
    try:
        condition = parse(job.condition.expression)
        if "needs" in {context for context, _ in condition.references()}:
            return False
        return not any(
            holds(job.condition.expression, Scope(contexts, _status_functions(*outcome)))
            for outcome in itertools.product((True, False), repeat=3)
        )
    except ExpressionError:
        return False  # the job will fail, and say so


def _status_functions(success: bool, failure: bool, cancelled: bool) -> dict[str, Function]:  # noqa: FBT001 - three answers in a row
    return {
        "always": lambda _: True,
        "cancelled": lambda _: cancelled,
        "failure": lambda _: failure,
        "success": lambda _: success,
    }


class _Check:
    """Looks at jobs one by one; notes what is wrong, the images they need and the matrix keys that were chosen."""

    def __init__(self, request: RunRequest, contexts: Mapping[str, Value]) -> None:
        self._request = request
        self._contexts = contexts
        self.diagnostics: list[Diagnostic] = []
        self.images: dict[str, Job] = {}
        self.matched: set[str] = set()
        self.remarks: list[str] = []
        self._sizes: dict[str, int] = {}

    def most(self, what: str) -> int:
        """Return the most ``cpus`` or ``memory`` that a job asks for."""
        own: int = getattr(self._request.spec, what)
        return self._sizes.get(what, own)

    def job(self, job: Job) -> None:
        matrix = job.strategy.matrix if job.strategy else None
        if matrix is None:
            self._leg(job, {})
            return
        if "needs" in contexts_used(matrix):  # known only when the jobs before it have run
            self._need(self._request.spec.image, job)
            self._fit(job, ())
            self.matched.update(self._request.matrix)
            return
        try:
            legs = legs_of(job, matrix, Scope(self._contexts), self._request.matrix)
        except (ExpressionError, MatrixError) as error:
            self._note(error.message, error.position or matrix.position, error.hint)
            return
        for leg in legs:
            self.matched.update(self._request.matrix.keys() & leg.keys())
            self._leg(job, leg)

    def _leg(self, job: Job, leg: Mapping[str, Value]) -> None:
        if "needs" in contexts_used(job.runs_on):
            self._need(self._request.spec.image, job)
            self._fit(job, ())
            return
        try:
            wanted = labels(evaluate_node(job.runs_on, Scope({**self._contexts, "matrix": leg})))
            self._need(serving(wanted, self._request.image_for), job)
            self._fit(job, wanted)
        except NoImageError as missing:
            if not self._request.skip_unsupported:
                hint = "map the label to an image under [runs-on], or skip such jobs with --skip-unsupported"
                if any(label.lower().startswith("cloche-") for label in wanted):
                    hint = f"a size is written as in cloche-4cpu-8gb; else {hint}"
                self._note(f"Job '{job.id}' cannot run: {missing}", job.runs_on.position, hint)
        except (ExpressionError, RunsOnError) as error:
            self._note(
                f"Job '{job.id}' cannot run: {error.message}",
                error.position or job.runs_on.position,
                error.hint,
            )

    def _need(self, image: str, job: Job) -> None:
        self.images.setdefault(image, job)
        if image != (first := next(iter(self.images))):
            other = self.images[first]
            self._note(
                f"Job '{job.id}' needs the image '{image}', but job '{other.id}' needs '{first}'",
                job.runs_on.position,
                "one VM runs the whole workflow: map their labels to one image, or run them apart with -j",
            )

    def _fit(self, job: Job, wanted: tuple[str, ...]) -> None:
        """Have the VM large enough for the job's labels; for one without, as large as the request says."""
        request = self._request
        asked = {ask.what: ask for ask in asks(wanted)}
        for what in ("cpus", "memory"):
            amount = own = getattr(request.spec, what)
            if what in asked and what in request.settled:
                self._remark(job, asked[what], own)
            elif what in asked:
                amount = asked[what].amount
                self._allow(job, asked[what], getattr(request.most, what) or own)
            self._sizes[what] = max(self._sizes.get(what, 0), amount)

    def _remark(self, job: Job, ask: Ask, own: int) -> None:
        remark = f"Job '{job.id}' asks for {ask}; --{ask.what} gives {shown(ask.what, own)}"
        if ask.amount > own and remark not in self.remarks:
            self.remarks.append(remark)

    def _allow(self, job: Job, ask: Ask, most: int) -> None:
        if ask.amount > most:
            self._note(
                f"Job '{job.id}' asks for {ask}; this machine allows {shown(ask.what, most)}",
                position_of(job.runs_on, ask.label),
                f"raise [limits] {ask.what} in ~/.config/cloche/config.toml, or settle it with --{ask.what}",
            )

    def _note(self, message: str, position: Position, hint: str | None) -> None:
        diagnostic = Diagnostic(message, position, hint)
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)
