"""One leg of a job (or a job without a matrix): its root in the guest, its settings, its steps, its outputs.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_id
"""

from __future__ import annotations

import io
import json
import posixpath
import time
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from cloche.errors import GuestError
from cloche.events import RunRewound
from cloche.execution.contexts import EVENT_PATH, RUNNER_NAME, TEMP, env_context, workspace
from cloche.execution.job_state import JobSetup, JobState
from cloche.execution.planned import all_steps
from cloche.execution.results import JobResult
from cloche.execution.serving import NoImageError, serving
from cloche.execution.sizes import asks, shown
from cloche.execution.steps import StepLoop
from cloche.expressions import ExpressionError, Scope, to_string
from cloche.records import record
from cloche.vm.guest import MAX_FIRST_FILES, JobRootSpec
from cloche.workflow.evaluate import boolean, evaluate_node, number, scalar_text, text_mapping
from cloche.workflow.runson import RunsOnError, labels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from cloche.config import Command
    from cloche.events import AnnotationLevel, Conclusion
    from cloche.execution.control import JobControl
    from cloche.execution.gitstate import EventInfo
    from cloche.execution.output_limit import OutputLimit
    from cloche.execution.planned import Planned
    from cloche.execution.publisher import JobPublisher, Publisher
    from cloche.execution.resume import Resume
    from cloche.execution.steps import StepCuts
    from cloche.execution.visits import Visits
    from cloche.expressions import Value
    from cloche.vm.guest import Guest, JobRoot
    from cloche.workflow.model import Job, RunDefaults
    from cloche.workflow.nodes import Node, Scalar
    from cloche.workflow.runson import Size

DEFAULT_MINUTES = 360.0
"""A job's time limit when it says nothing: GitHub's."""

_OVERDUE = (
    f"The job running on runner {RUNNER_NAME} has exceeded the maximum execution time of {{0}} minutes."
)

_CONFLICT = (
    "'{}' was changed both by an earlier step and in the repository: the step's is left there "
    "(--ours takes the repository's, --theirs the step's without this warning)"
)


@record
class RunSetup:
    """What all jobs of a run share.

    ``contexts`` are ``github``, ``vars``, ``inputs``, ``secrets`` and ``runner``; ``env`` and ``defaults`` are
    the workflow's, ``environment`` is what programs find before that. ``image`` is what the VM was made from, ``size``
    what it has, ``output`` bounds what steps write. The rest is the request's.
    """

    guest: Guest | None
    vm_id: str
    publisher: Publisher
    event: EventInfo
    root: Path
    contexts: Mapping[str, Value]
    environment: Mapping[str, str]
    env: Node | None
    defaults: RunDefaults
    image: str
    size: Size
    output: OutputLimit
    image_for: Callable[[Sequence[str]], str | None]
    settled: frozenset[str] = frozenset()
    skip_unsupported: bool = False
    setups: tuple[Command, ...] = ()
    cleanups: tuple[Command, ...] = ()
    stop_on_failure: bool = False
    step_timeout: float | None = None
    time_limit: float | None = None
    include: tuple[str, ...] = ()
    debug: bool = False
    checkpoints: Checkpoints | None = None
    resume: Resume | None = None
    visits: Visits | None = None


class Checkpoints(Protocol):
    """Makes the cuts of a run."""

    def of(self, leg: Leg) -> StepCuts:
        """Return what makes them in a leg."""


@record(frozen=False)
class Leg:
    """A leg about to run. ``contexts`` are its ``needs``, ``strategy`` and ``matrix``.

    ``root_name`` is what its root in the guest is to be called (letters, digits and ``_-.`` only), ``guest_name`` what
    the guest calls it. ``began`` is when it began, by the monotonic clock.
    """

    run: RunSetup
    job: Job
    contexts: Mapping[str, Value]
    control: JobControl
    publisher: JobPublisher
    root_name: str
    state: JobState = field(default_factory=JobState)
    continue_on_error: bool = False
    began: float = 0.0
    guest_name: str = ""

    @property
    def resume(self) -> Resume | None:
        """What the leg itself goes on from: its steps up to there have run."""
        resume = self.run.resume
        return resume if resume and resume.place.is_of(self.job.id, self.publisher.leg) else None

    async def carry_out(self) -> JobResult:
        """Run the leg to its end and tell of it. A subscriber's exceptions and cancellation pass through."""
        started = time.monotonic()
        conclusion: Conclusion = "cancelled"
        outputs: dict[str, str] = {}
        try:
            if missing := self._missing():
                conclusion = self._do_without(missing)
            elif not self.control.cancelled:
                conclusion, outputs = await self._run()
        except (ExpressionError, RunsOnError, GuestError) as error:
            conclusion = "failure"
            self._say("error", str(self.control.lost or error))
        finally:
            self.control.close()
            self.publisher.finished(conclusion, outputs, time.monotonic() - started)
        leg, name = self.publisher.leg, self.publisher.name
        return JobResult(self.job.id, leg, name, conclusion, outputs, self.continue_on_error)

    def _missing(self) -> str | None:
        """Return what the VM lacks of what the leg's ``runs-on`` asks for."""
        try:
            wanted = labels(evaluate_node(self.job.runs_on, self._scope()))
            image = serving(wanted, self.run.image_for)
        except NoImageError as missing:
            return str(missing)
        if image != self.run.image:
            return f"it needs the image '{image}', the VM has '{self.run.image}'"
        for ask in asks(wanted):
            if ask.exceeds(self.run.size) and ask.what not in self.run.settled:
                has = shown(ask.what, getattr(self.run.size, ask.what) or 0)
                return f"it asks for {ask}, the VM has {has}"
        return None

    def _do_without(self, missing: str) -> Conclusion:
        if self.run.skip_unsupported:
            self._say("warning", f"skipped: {missing}")
            return "skipped"
        self._say("error", missing)
        return "failure"

    async def _run(self) -> tuple[Conclusion, dict[str, str]]:
        if (node := self.job.continue_on_error) is not None:
            self.continue_on_error = boolean(node, self._scope())
        if self.run.guest is None:
            raise GuestError("the run has no VM, since none of its jobs seemed to need one")
        if self.control.lost:
            raise self.control.lost
        resume = self.resume
        self.state = self._first_state()
        setup = self._setup()
        planned = all_steps(self.job.steps, self.run.setups, self.run.cleanups)
        limit = self.job.timeout_minutes
        minutes = number(limit, self._scope()) if limit else DEFAULT_MINUTES
        event = json.dumps(self.run.event.payload).encode()
        root = await self._root(self.run.guest, event)
        async with root if self.run.visits is None else self.run.visits.root(root):
            if resume is not None:
                await self._catch_up(root, resume)
            elif len(event) > MAX_FIRST_FILES:
                await root.put(posixpath.dirname(EVENT_PATH), _archive(posixpath.basename(EVENT_PATH), event))
            self.publisher.started(len(planned))
            self.guest_name = root.name
            self.began = time.monotonic() - (resume.elapsed if resume else 0.0)
            if minutes > 0:
                left = self.began + minutes * 60 - time.monotonic()
                self.control.cancel_after(max(left, 0.0), _OVERDUE.format(to_string(minutes)))
            await self._loop(root, planned, setup).run()
        if self.state.lost:
            return "failure", {}
        try:
            return self.state.status, self._outputs(setup)
        except ExpressionError as error:
            self._say("error", f"Fail to evaluate job outputs: {error}")
            return "cancelled" if self.state.status == "cancelled" else "failure", {}

    def _first_state(self) -> JobState:
        if self.resume is not None:
            return self.resume.make_state()
        return JobState(sent={} if self.run.checkpoints else None)

    def _loop(self, root: JobRoot, planned: Sequence[Planned], setup: JobSetup) -> StepLoop:
        return StepLoop(
            root,
            planned,
            setup,
            self.state,
            control=self.control,
            publisher=self.publisher,
            cut=self.run.checkpoints.of(self) if self.run.checkpoints else None,
            first=self.resume.place.step if self.resume else 1,
        )

    async def _root(self, guest: Guest, event: bytes) -> JobRoot:
        """Return the leg's root in the guest: a new one, or the one that it had at the cut."""
        if self.resume is not None:
            return guest.reopen_job(self.resume.place.root)
        spec = JobRootSpec(
            name=self.root_name,
            folders=(workspace(self.run.event.repository), TEMP),
            files={EVENT_PATH: event} if len(event) <= MAX_FIRST_FILES else {},
        )
        return await guest.open_job(spec)

    async def _catch_up(self, root: JobRoot, resume: Resume) -> None:
        """Give the workspace what the host has changed since, and tell what the leg goes on from."""
        from cloche.execution.workspace import catch_up

        caught_up = await catch_up(root, self.run.root, self.run.include, self.state.sent or {}, resume.side)
        for name in caught_up.conflicts:
            self._say("warning", _CONFLICT.format(name))
        done = {
            f"{result.job} ({result.leg})" if result.leg else result.job: result.conclusion
            for result in resume.results
        }
        place, publisher = resume.place, self.run.publisher
        publisher.publish(
            RunRewound(
                run_id=publisher.run_id,
                at=publisher.clock(),
                of=resume.of,
                job=place.job,
                leg=place.leg,
                step=place.step,
                done=done,
                files=caught_up.changed,
            )
        )

    def _scope(self) -> Scope:
        """Return what the job's own settings see: everything but what steps do."""
        github = self.run.contexts["github"]
        github = {**github, "job": self.job.id} if isinstance(github, dict) else {}
        return Scope({**self.run.contexts, **self.contexts, "github": github})

    def _setup(self) -> JobSetup:
        scope = self._scope()
        for node in (self.run.env, self.job.env):
            if node is not None and self.resume is None:  # else it is in the state
                self.state.env |= text_mapping(node, scope)
        with_env = Scope({**scope.contexts, "env": env_context(self.state.env)})
        ours, theirs = self.job.defaults, self.run.defaults
        return JobSetup(
            job=self.job,
            vm_id=self.run.vm_id,
            workspace=workspace(self.run.event.repository),
            contexts=scope.contexts,
            environment=self.run.environment,
            event=self.run.event,
            root=self.run.root,
            masker=self.run.publisher.masker,
            shell=_text(ours.shell or theirs.shell, with_env),
            working_directory=_text(ours.working_directory or theirs.working_directory, with_env),
            include=self.run.include,
            step_timeout=self.run.step_timeout,
            output=self.run.output,
            memory=self.run.guest.info.memory if self.run.guest else 0,
            debug=self.run.debug,
            visits=self.run.visits,
        )

    def _outputs(self, setup: JobSetup) -> dict[str, str]:
        """Return the job's outputs less those that are empty or hold a secret, as GitHub does. ExpressionError."""
        if self.job.outputs is None:
            return {}
        outputs = {}
        for name, value in text_mapping(self.job.outputs, Scope(self.state.contexts(setup))).items():
            if setup.masker.holds_secret(value):
                self._say("warning", f"Skip output '{name}' since it may contain secret.")
            elif value:
                outputs[name] = value
        return outputs

    def _say(self, level: AnnotationLevel, message: str) -> None:
        self.run.publisher.notice(level, f"Job '{self.publisher.name}': {message}")


def _text(node: Scalar | None, scope: Scope) -> str | None:
    return scalar_text(node, scope) if node is not None else None


async def _archive(name: str, content: bytes) -> AsyncIterator[bytes]:
    """Yield one file as a tar stream."""
    import tarfile

    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime = len(content), int(time.time())
        archive.addfile(entry, io.BytesIO(content))
    yield target.getvalue()
