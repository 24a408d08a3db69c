"""One run: what it is made of, settled before any VM is asked for, and what it tells of itself."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from cloche.events import RunFinished, RunStarted, SessionCreated, SessionReleased, SessionWaiting
from cloche.execution.contexts import RunNumbers, base_environment, github_context, runner_context
from cloche.execution.inputs import dispatch_inputs
from cloche.execution.jobs import JobGraph, job_name
from cloche.execution.legs import RunSetup
from cloche.execution.output_limit import OutputLimit
from cloche.execution.plan import make_plan
from cloche.execution.results import RunResult
from cloche.expressions import ExpressionError, Scope, to_string
from cloche.records import record
from cloche.workflow.evaluate import scalar_text
from cloche.workflow.runson import Size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloche.events import Conclusion
    from cloche.execution.cuts import Rewind
    from cloche.execution.gitstate import EventInfo
    from cloche.execution.legs import Checkpoints
    from cloche.execution.plan import Plan
    from cloche.execution.publisher import Publisher
    from cloche.execution.request import RunRequest
    from cloche.execution.visits import Visits
    from cloche.expressions import Value
    from cloche.session import Session, Waiting
    from cloche.vm.guest import Guest
    from cloche.workflow.model import Workflow


_MAX_NAME = 1000


def new_run_id() -> str:
    """Return an id no other run has: ``run-`` and 12 hexadecimal digits."""
    return f"run-{os.urandom(6).hex()}"


@record(frozen=False)
class Run:
    """A workflow about to be carried out. ``contexts`` are those known before any job.

    ``rewind`` is what the run goes on from, ``origin`` the id of the first of the runs that go on from each other.
    """

    workflow: Workflow
    request: RunRequest
    publisher: Publisher
    event: EventInfo
    contexts: Mapping[str, Value]
    plan: Plan
    name: str = ""
    remarks: tuple[str, ...] = ()
    session: Session | None = None
    jobs: JobGraph | None = None
    rewind: Rewind | None = None
    origin: str = ""
    checkpoints: Checkpoints | None = None
    visits: Visits | None = None

    @classmethod
    def of(
        cls, workflow: Workflow, request: RunRequest, publisher: Publisher, rewind: Rewind | None = None
    ) -> Run:
        """Settle what the run will be. WorkflowError or UsageError for what cannot be one."""
        for value in request.secrets.values():
            publisher.masker.add(value)
        if rewind is not None:
            publisher.masker.load(rewind.checkpoint.masks)
        origin = rewind.checkpoint.origin if rewind else publisher.run_id
        number = int(origin.rpartition("-")[2], 16)
        numbers = RunNumbers(number, request.run_number, request.run_attempt)
        token = request.secrets.get("GITHUB_TOKEN", "")
        inputs = dispatch_inputs(workflow, request.event.name, request.inputs)
        event = _with_inputs(request.event, inputs)
        contexts: dict[str, Value] = {
            "github": github_context(workflow, event, numbers, token),
            "inputs": inputs,
            "vars": dict(request.vars),
        }
        plan = make_plan(workflow, request, contexts)
        name, wrong = _run_name(workflow, contexts)
        name = publisher.masker.mask(name)[:_MAX_NAME]  # else a piece of a secret could be left at the cut
        remarks = (*plan.remarks, *wrong)
        return cls(
            workflow,
            request,
            publisher,
            event,
            contexts,
            plan,
            name,
            remarks=remarks,
            rewind=rewind,
            origin=origin,
        )

    @property
    def debug(self) -> bool:
        """Whether ``ACTIONS_STEP_DEBUG`` is set, in whichever way."""
        asked = {**self.request.vars, **self.request.secrets}.get("ACTIONS_STEP_DEBUG", "")
        return self.request.debug or asked.lower() == "true"

    def graph(self, guest: Guest | None) -> JobGraph:
        """Return the jobs, ready to run in ``guest``; without one, only jobs that are skipped can end well."""
        request = self.request
        spec = self.session.context.spec if self.session else None
        runner = runner_context(self.event, debug=self.debug)
        setup = RunSetup(
            guest=guest,
            vm_id=self.session.vm_id if self.session else "",
            publisher=self.publisher,
            event=self.event,
            root=request.root,
            contexts={**self.contexts, "secrets": dict(request.secrets), "runner": runner},
            environment={**base_environment(), **(guest.info.env if guest else {}), **request.env},
            env=self.workflow.env,
            defaults=self.workflow.defaults,
            image=spec.image if spec else "",
            size=Size(spec.cpus, spec.memory) if spec else Size(),
            output=OutputLimit(request.output_limit),
            image_for=request.image_for,
            settled=request.settled,
            skip_unsupported=request.skip_unsupported,
            setups=request.setups,
            cleanups=request.cleanups,
            stop_on_failure=request.stop_on_failure,
            step_timeout=request.step_timeout,
            time_limit=request.time_limit,
            include=request.include,
            debug=self.debug,
            checkpoints=self.checkpoints,
            visits=self.visits,
            resume=self.rewind.checkpoint.resume(self.rewind.side) if self.rewind else None,
        )
        self.jobs = JobGraph(setup, self.plan.jobs, request.matrix, request.timing)
        return self.jobs

    def result(self, conclusion: Conclusion, seconds: float) -> RunResult:
        """Return what the run came to."""
        session = self.session
        return RunResult(
            run_id=self.publisher.run_id,
            conclusion=conclusion,
            jobs=tuple(self.jobs.results) if self.jobs else (),
            duration=seconds,
            session_id=session.id if session else None,
            vm_id=session.vm_id if session else None,
        )

    def tell_start(self, notes: Sequence[str]) -> None:
        """Tell that the run begins, and what the user should know of the VMs here."""
        names = {job.id: job_name(job, self.contexts, None) for job in self.plan.jobs.values()}
        self.publisher.publish(
            RunStarted(
                run_id=self.publisher.run_id,
                at=self.publisher.clock(),
                workflow=self.workflow.display_name,
                path=self.workflow.path,
                event=self.event.name,
                jobs=names,
                name=self.name,
            )
        )
        for note in (*notes, *self.remarks):
            self.publisher.notice("notice", note)

    def tell_waiting(self, waiting: Waiting) -> None:
        """Tell that the run waits for a place among the sessions of this machine."""
        self.publisher.publish(
            SessionWaiting(
                run_id=self.publisher.run_id,
                at=self.publisher.clock(),
                place=waiting.place,
                limit=waiting.limit,
            )
        )

    def tell_session(self, session: Session) -> None:
        """Tell which VM the run has."""
        self.session = session
        info = session.vm.guest.info
        self.publisher.publish(
            SessionCreated(
                run_id=self.publisher.run_id,
                at=self.publisher.clock(),
                session_id=session.id,
                vm_id=session.vm_id,
                provider=session.vm_type,
                source=session.allocation.source,
                duration_ms=round(session.allocation.duration * 1000, 3),
                kernel=info.kernel,
                boot_id=info.boot_id,
            )
        )
        self.publisher.log(f"Starting workflow '{self.workflow.display_name}' for session {session.id}")

    def tell_jobs_ended(self, conclusion: Conclusion, seconds: float) -> None:
        """Write to the log how the jobs ended."""
        how = {"success": "completed successfully", "failure": "failed", "cancelled": "was cancelled"}
        ended = how.get(conclusion, "had nothing to run")
        name = self.workflow.display_name
        self.publisher.log(f"Workflow '{name}' {ended} in {round(seconds * 1000)}ms")

    def tell_release(self, session: Session) -> None:
        """Tell that the VM was given back."""
        self.publisher.publish(
            SessionReleased(
                run_id=self.publisher.run_id,
                at=self.publisher.clock(),
                session_id=session.id,
                vm_id=session.vm_id,
            )
        )

    def tell_end(self, conclusion: Conclusion, seconds: float) -> None:
        """Tell that the run ended."""
        self.publisher.publish(
            RunFinished(
                run_id=self.publisher.run_id,
                at=self.publisher.clock(),
                conclusion=conclusion,
                duration_ms=round(seconds * 1000),
            )
        )


def _run_name(workflow: Workflow, contexts: Mapping[str, Value]) -> tuple[str, tuple[str, ...]]:
    """Return what ``run-name`` comes to, empty without one, and what is wrong with it.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#run-name
    """
    if workflow.run_name is None:
        return "", ()
    try:
        name = scalar_text(workflow.run_name, Scope(contexts))
    except ExpressionError as error:
        return "", (f"The run has no name, since `run-name` cannot be evaluated: {error}",)
    return " ".join(name.split()), ()


def _with_inputs(event: EventInfo, inputs: Mapping[str, Value]) -> EventInfo:
    """Return the event with the inputs in its payload, where they are strings."""
    if not inputs:
        return event
    texts = {name: to_string(value) for name, value in inputs.items()}
    return replace(event, payload={**event.payload, "inputs": texts})
