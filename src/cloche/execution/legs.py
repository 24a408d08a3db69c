"""One leg of a job (or a job without a matrix): its root in the guest, its settings, its steps, its outputs.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_id
"""

from __future__ import annotations

import io
import json
import posixpath
import time
from dataclasses import field
from typing import TYPE_CHECKING

from cloche.errors import GuestError
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
    from cloche.execution.publisher import JobPublisher, Publisher
    from cloche.expressions import Value
    from cloche.vm.guest import Guest
    from cloche.workflow.model import Job, RunDefaults
    from cloche.workflow.nodes import Node, Scalar
    from cloche.workflow.runson import Size

DEFAULT_MINUTES = 360.0
"""A job's time limit when it says nothing: GitHub's."""

_OVERDUE = (
    f"The job running on runner {RUNNER_NAME} has exceeded the maximum execution time of {{0}} minutes."
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


@record(frozen=False)
class Leg:
    """A leg about to run. ``contexts`` are its ``needs``, ``strategy`` and ``matrix``.

    ``root_name`` is what its root in the guest is called: letters, digits and ``_-.`` only.
    """

    run: RunSetup
    job: Job
    contexts: Mapping[str, Value]
    control: JobControl
    publisher: JobPublisher
    root_name: str
    state: JobState = field(default_factory=JobState)
    continue_on_error: bool = False

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
        setup = self._setup()
        planned = all_steps(self.job.steps, self.run.setups, self.run.cleanups)
        limit = self.job.timeout_minutes
        minutes = number(limit, self._scope()) if limit else DEFAULT_MINUTES
        event = json.dumps(self.run.event.payload).encode()
        small = len(event) <= MAX_FIRST_FILES
        spec = JobRootSpec(
            name=self.root_name,
            folders=(workspace(self.run.event.repository), TEMP),
            files={EVENT_PATH: event} if small else {},
        )
        async with await self.run.guest.open_job(spec) as root:
            if not small:
                await root.put(posixpath.dirname(EVENT_PATH), _archive(posixpath.basename(EVENT_PATH), event))
            self.publisher.started(len(planned))
            if minutes > 0:
                self.control.cancel_after(minutes * 60, _OVERDUE.format(to_string(minutes)))
            await StepLoop(
                root, planned, setup, self.state, control=self.control, publisher=self.publisher
            ).run()
        if self.state.lost:
            return "failure", {}
        try:
            return self.state.status, self._outputs(setup)
        except ExpressionError as error:
            self._say("error", f"Fail to evaluate job outputs: {error}")
            return "cancelled" if self.state.status == "cancelled" else "failure", {}

    def _scope(self) -> Scope:
        """Return what the job's own settings see: everything but what steps do."""
        github = self.run.contexts["github"]
        github = {**github, "job": self.job.id} if isinstance(github, dict) else {}
        return Scope({**self.run.contexts, **self.contexts, "github": github})

    def _setup(self) -> JobSetup:
        scope = self._scope()
        for node in (self.run.env, self.job.env):
            if node is not None:
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
