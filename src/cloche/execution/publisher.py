"""The one way out: every event and every log line of a run passes its masks here.

Not masked are the identifiers that tell things apart (runs, sessions, VMs, jobs, legs, steps) and words of
Cloche's own choice (conclusions, levels): none of them can come from a secret, and a secret that happens to
read ``build`` must not make two jobs one.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from cloche.events import (
    Annotation,
    JobFinished,
    JobStarted,
    LimitReached,
    Notice,
    StepFinished,
    StepGroup,
    StepOutput,
    StepStarted,
    StepSummary,
)
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloche.events import AnnotationLevel, Conclusion, Event, Quota, Subscriber
    from cloche.execution.line_commands import Issue
    from cloche.execution.masking import Masker

MAX_MESSAGE = 4096
"""Characters of an annotation's message: actions/runner's limit."""

_IDENTIFIERS = frozenset(
    {
        "conclusion",
        "done",
        "id",
        "job",
        "leg",
        "level",
        "of",
        "outcome",
        "provider",
        "run_id",
        "session_id",
        "source",
        "vm_id",
        "which",
    }
)
_log = logging.getLogger("cloche.execution")


class Publisher:
    """Masks and hands on what one run has to say. ``clock`` gives seconds since the epoch."""

    def __init__(
        self,
        run_id: str,
        masker: Masker,
        subscribers: Sequence[Subscriber],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run_id = run_id
        self.masker = masker
        self.clock = clock
        self._subscribers = tuple(subscribers)

    def publish(self, event: Event) -> None:
        """Hand a masked event to every subscriber; what one of them raises goes to the caller."""
        masked = self._masked(event)
        for subscriber in self._subscribers:
            subscriber(masked)

    def limit_reached(self, which: Quota, limit: float, value: float) -> None:
        """Tell that the run met a limit."""
        self.publish(LimitReached(run_id=self.run_id, at=self.clock(), which=which, limit=limit, value=value))

    def notice(self, level: AnnotationLevel, message: str) -> None:
        """Tell something that belongs to no step."""
        self.publish(Notice(run_id=self.run_id, at=self.clock(), level=level, message=message))

    def log(self, message: str) -> None:
        """Write a masked line to the log at INFO."""
        _log.info("%s", self.masker.mask(message))

    def _masked(self, event: Event) -> Event:
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(event):
            if field.name not in _IDENTIFIERS:
                value = getattr(event, field.name)
                masked = self._mask_jobs(value) if field.name == "jobs" else self._mask(value)
                if masked != value:
                    changes[field.name] = masked
        return dataclasses.replace(event, **changes) if changes else event

    def _mask(self, value: object) -> object:
        if isinstance(value, str):
            return self.masker.mask(value)
        if isinstance(value, Mapping):
            return {self._mask(key): self._mask(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._mask(item) for item in value)
        return value

    def _mask_jobs(self, jobs: Mapping[str, str]) -> object:
        """Mask the names of ``RunStarted.jobs``, whose keys are identifiers."""
        return {job: self.masker.mask(name) for job, name in jobs.items()}


class _JobPlace(TypedDict):
    run_id: str
    at: float
    job: str
    leg: str | None


class _StepPlace(_JobPlace):
    step: int


@record
class JobPublisher:
    """Tells what happens in one job, or one leg of it."""

    run: Publisher
    job: str
    leg: str | None
    name: str

    @property
    def place(self) -> _JobPlace:
        """What every event of the job holds."""
        return {"run_id": self.run.run_id, "at": self.run.clock(), "job": self.job, "leg": self.leg}

    def started(self, steps: int) -> None:
        """Tell that the job starts."""
        self.run.publish(JobStarted(**self.place, name=self.name, steps=steps))

    def finished(self, conclusion: Conclusion, outputs: Mapping[str, str], seconds: float) -> None:
        """Tell that the job ended."""
        self.run.publish(
            JobFinished(
                **self.place,
                name=self.name,
                conclusion=conclusion,
                outputs=dict(outputs),
                duration_ms=round(seconds * 1000),
            )
        )

    def step(self, number: int, step_id: str) -> StepPublisher:
        """Return what tells of a step."""
        return StepPublisher(self, number, step_id)


@record
class StepResult:
    """How a step ended. ``exit_code`` and ``boot_id`` are ``None`` if no program of it ran in the guest."""

    outcome: Conclusion
    conclusion: Conclusion
    exit_code: int | None = None
    boot_id: str | None = None
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    usage: Mapping[str, float] = dataclasses.field(default_factory=dict)


@record
class StepPublisher:
    """Tells what happens in one step."""

    job: JobPublisher
    number: int
    id: str

    @property
    def _place(self) -> _StepPlace:
        return {**self.job.place, "step": self.number}

    def started(self, name: str) -> None:
        """Tell that the step starts."""
        self.job.run.publish(StepStarted(**self._place, id=self.id, name=name))

    def output(self, text: str) -> None:
        """Pass on text that the step wrote: whole lines."""
        self.job.run.publish(StepOutput(**self._place, text=text))

    def group(self, title: str | None) -> None:
        """Tell that a group of lines begins or, with ``None``, ends."""
        self.job.run.publish(StepGroup(**self._place, title=title))

    def annotate(self, level: AnnotationLevel, message: str) -> None:
        """Tell a finding about the step."""
        self.job.run.publish(Annotation(**self._place, level=level, message=self._cut(message)))

    def issue(self, issue: Issue, file: str | None) -> None:
        """Pass on an annotation that the step made; ``file`` is its file as the repository names it."""
        self.job.run.publish(
            Annotation(
                **self._place,
                level=issue.level,
                message=self._cut(issue.message),
                title=issue.title and self._cut(issue.title),
                file=file and self._cut(file),
                line=issue.line,
                end_line=issue.end_line,
                column=issue.column,
                end_column=issue.end_column,
            )
        )

    def limit_reached(self, which: Quota, limit: float, value: float) -> None:
        """Tell that the run met a limit in this step."""
        self.job.run.publish(LimitReached(**self._place, which=which, limit=limit, value=value))

    def summary(self, markdown: str) -> None:
        """Pass on the step's summary."""
        self.job.run.publish(StepSummary(**self._place, markdown=markdown))

    def finished(self, name: str, vm_id: str, result: StepResult, seconds: float) -> None:
        """Tell that the step ended."""
        self.job.run.publish(
            StepFinished(
                **self._place,
                id=self.id,
                name=name,
                vm_id=vm_id,
                boot_id=result.boot_id,
                outcome=result.outcome,
                conclusion=result.conclusion,
                exit_code=result.exit_code,
                outputs=dict(result.outputs),
                duration_ms=round(seconds * 1000),
                usage=dict(result.usage),
            )
        )

    def _cut(self, text: str) -> str:
        """Return as much of ``text`` as a message can hold, masked before anything is cut."""
        return self.job.run.masker.mask(text)[:MAX_MESSAGE]
