"""The one typed stream a run emits. Whatever shows or stores a run subscribes to it; see docs/events.md.

Times are seconds since the epoch (``at``) or whole milliseconds (``duration_ms``). Every string in every event
has passed the run's masks before anyone sees it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping

Quota = Literal["time", "output", "memory"]
Conclusion = Literal["success", "failure", "cancelled", "skipped"]
AnnotationLevel = Literal["notice", "warning", "error", "debug"]


@record(kw_only=True)
class Event:
    """Base of all events."""

    type: ClassVar[str]
    run_id: str
    at: float

    def to_json(self) -> dict[str, object]:
        """The event as JSON-ready data, ``type`` first."""
        return {"type": self.type, **dataclasses.asdict(self)}


@record(kw_only=True)
class RunStarted(Event):
    """A run began; nothing is allocated yet. ``jobs`` maps job ids to display names, in file order.

    ``name`` is the run's own (``run-name``), empty where the workflow gives it none.
    """

    type: ClassVar[str] = "run.started"
    workflow: str
    path: str
    event: str
    jobs: Mapping[str, str]
    name: str = ""


@record(kw_only=True)
class Notice(Event):
    """Something the user should know that belongs to no step (emulation instead of KVM, a skipped job)."""

    type: ClassVar[str] = "run.notice"
    level: AnnotationLevel
    message: str


@record(kw_only=True)
class SessionWaiting(Event):
    """The run waits for a place among the sessions of this machine, at most ``limit``; ``place`` 1 is next."""

    type: ClassVar[str] = "session.waiting"
    place: int
    limit: int


@record(kw_only=True)
class SessionCreated(Event):
    """The run has its VM. ``source`` is ``warm``, ``restored`` or ``booted``."""

    type: ClassVar[str] = "session.created"
    session_id: str
    vm_id: str
    provider: str
    source: str
    duration_ms: float
    kernel: str
    boot_id: str


@record(kw_only=True)
class RunRewound(Event):
    """The run goes on from a cut of another one, ``of``: before step ``step`` of the job, its VM as it was then.

    ``done`` maps jobs, or legs as ``job (leg)``, to how they had ended; nothing more is told of those. ``files`` counts
    what the host had changed in the repository since and was sent to the VM.
    """

    type: ClassVar[str] = "run.rewound"
    of: str
    job: str
    leg: str | None
    step: int
    done: Mapping[str, Conclusion]
    files: int


@record(kw_only=True)
class RunKept(Event):
    """The run did not end well, and can go on from before step ``step`` of the job, ``until`` that time.

    ``size`` is the bytes that all its cuts take.
    """

    type: ClassVar[str] = "run.kept"
    job: str
    leg: str | None
    step: int
    size: int
    until: float


@record(kw_only=True)
class SessionReleased(Event):
    """The session ended and its VM was given back."""

    type: ClassVar[str] = "session.released"
    session_id: str
    vm_id: str


@record(kw_only=True)
class JobEvent(Event):
    """Base of what happens in a job. ``leg`` tells the matrix combination, ``None`` without a matrix."""

    job: str
    leg: str | None


@record(kw_only=True)
class JobStarted(JobEvent):
    """A job (one leg of it) has its root in the VM and starts its steps, ``steps`` of them."""

    type: ClassVar[str] = "job.started"
    name: str
    steps: int


@record(kw_only=True)
class JobFinished(JobEvent):
    """A job ended; a job that never started ends here too, as ``skipped`` or ``cancelled``."""

    type: ClassVar[str] = "job.finished"
    name: str
    conclusion: Conclusion
    outputs: Mapping[str, str]
    duration_ms: int


@record(kw_only=True)
class StepEvent(JobEvent):
    """Base of what happens in a step. ``step`` is its number in the job, from 1."""

    step: int


@record(kw_only=True)
class StepStarted(StepEvent):
    """A step starts; ``id`` is the step's own id or empty."""

    type: ClassVar[str] = "step.started"
    id: str
    name: str


@record(kw_only=True)
class SnapshotTaken(JobEvent):
    """The run was kept as it is, ``step`` being next: ``size`` bytes on disk. The VM stood still for ``paused_ms``."""

    type: ClassVar[str] = "snapshot.taken"
    step: int
    size: int
    paused_ms: float
    duration_ms: int


@record(kw_only=True)
class StepOutput(StepEvent):
    """Text a step wrote: one or more whole lines, each ended by a newline, commands already taken out."""

    type: ClassVar[str] = "step.output"
    text: str


@record(kw_only=True)
class StepGroup(StepEvent):
    """``::group::`` (``title`` set) or ``::endgroup::`` (``title`` is ``None``)."""

    type: ClassVar[str] = "step.group"
    title: str | None


@record(kw_only=True)
class Annotation(StepEvent):
    """``::error file=…::`` and its kin, or a finding of Cloche's own about the step."""

    type: ClassVar[str] = "step.annotation"
    level: AnnotationLevel
    message: str
    title: str | None = None
    file: str | None = None
    line: int | None = None
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None


@record(kw_only=True)
class StepSummary(StepEvent):
    """What a step wrote to ``GITHUB_STEP_SUMMARY``, Markdown."""

    type: ClassVar[str] = "step.summary"
    markdown: str


@record(kw_only=True)
class StepFinished(StepEvent):
    """A step ended. ``boot_id`` was read inside the guest at this step; ``None`` if the step never ran there.

    ``outcome`` is before ``continue-on-error`` is applied, ``conclusion`` after.
    """

    type: ClassVar[str] = "step.finished"
    id: str
    name: str
    vm_id: str
    boot_id: str | None
    outcome: Conclusion
    conclusion: Conclusion
    exit_code: int | None
    outputs: Mapping[str, str]
    duration_ms: int
    usage: Mapping[str, float] = field(default_factory=dict)


@record(kw_only=True)
class LimitReached(Event):
    """The run met a limit; an annotation or a notice says so in words.

    ``time``: the run was cancelled after ``limit`` seconds. ``output``: it was cancelled when more than ``limit``
    bytes had been written. ``memory``: a process was killed for want of it, ``limit`` bytes being the VM's.
    ``value`` is what it came to, in the same unit; for ``memory`` the most that one process had. ``job`` and
    ``step`` tell where, as far as the limit was met in one.
    """

    type: ClassVar[str] = "limit.reached"
    which: Quota
    limit: float
    value: float
    job: str | None = None
    leg: str | None = None
    step: int | None = None


@record(kw_only=True)
class RunFinished(Event):
    """The run ended; nothing of it is left on the machine."""

    type: ClassVar[str] = "run.finished"
    conclusion: Conclusion
    duration_ms: int


class Subscriber(Protocol):
    """Anything that shows or stores a run."""

    def __call__(self, event: Event, /) -> None:
        """Take one event. Must not block; what it raises ends the run."""
