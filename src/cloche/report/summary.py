"""What a run has come to so far, added up from its events: the model that every display reads.

It holds little whatever the guest does: counts, names cut to a line, bounded tails of what running and failed
steps wrote, bounded lists of annotations.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from cloche.events import (
    Annotation,
    JobEvent,
    JobFinished,
    JobStarted,
    Notice,
    RunFinished,
    RunKept,
    RunRewound,
    RunStarted,
    SessionCreated,
    SessionReleased,
    SessionWaiting,
    StepEvent,
    StepFinished,
    StepGroup,
    StepOutput,
    StepStarted,
    StepSummary,
)
from cloche.records import record
from cloche.report.text import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.events import Conclusion, Event

MAX_ANNOTATIONS = 1000
"""Different annotations of a run that are kept; more are counted only."""

MAX_MESSAGE = 4000
"""Characters of an annotation's or a notice's message that are kept."""

MAX_MARKDOWN = 64 * 1024
"""Characters of a step's summary that are kept."""

MAX_TAIL = 16 * 1024
"""Characters of a step's last output that are kept."""


class Tail:
    """The end of a long text: its last ``limit`` characters, and how many lines there were in all."""

    __slots__ = ("_limit", "_text", "cut", "lines")

    def __init__(self, limit: int = MAX_TAIL) -> None:
        self._limit = limit
        self._text = ""
        self.lines = 0
        self.cut = False

    def add(self, text: str) -> None:
        """Take more text, in time that does not grow with what came before."""
        self.lines += text.count("\n")
        self._text += text[-self._limit :]
        self.cut = self.cut or len(text) > self._limit
        if len(self._text) > 2 * self._limit:
            self._text = self._text[-self._limit :]
            self.cut = True

    def last(self, count: int, *, colour: bool = False) -> list[str]:
        """Give the last ``count`` whole visible lines that are kept."""
        text = self._text.partition("\n")[2] or self._text if self.cut else self._text
        lines = visible("\n".join(text.rstrip("\n").rsplit("\n", count)[-count:]), colour=colour)
        return lines.split("\n") if lines else []

    def clear(self) -> None:
        """Forget the text; the count of lines stays."""
        self._text = ""


@record(frozen=False)
class StepState:
    """A step as far as it has come; ``conclusion`` is ``None`` until it ends."""

    number: int
    name: str = ""
    started_at: float = 0.0
    outcome: Conclusion | None = None
    conclusion: Conclusion | None = None
    exit_code: int | None = None
    boot_id: str | None = None
    duration_ms: int = 0
    tail: Tail = field(default_factory=Tail)
    group: str | None = None
    group_lines: int = 0
    markdown: str = ""

    @property
    def forgiven(self) -> bool:
        """It failed, and ``continue-on-error`` let the job go on."""
        return self.outcome == "failure" and self.conclusion == "success"


@record(frozen=False)
class JobState:
    """A job, or one leg of it, as far as it has come; ``accompanied`` if another ran at its side.

    ``earlier`` if it ended in the run that this one goes on from.
    """

    job: str
    leg: str | None
    name: str
    planned: int = 0
    started_at: float | None = None
    conclusion: Conclusion | None = None
    duration_ms: int = 0
    accompanied: bool = False
    earlier: bool = False
    steps: dict[int, StepState] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """It started and has not ended."""
        return self.started_at is not None and self.conclusion is None

    def step(self, number: int) -> StepState:
        """Find the step of this number, or begin it."""
        return self.steps.setdefault(number, StepState(number))


@record(frozen=False)
class RunState:
    """A run as far as it has come. ``jobs`` is keyed by job id and leg."""

    run_id: str
    workflow: str
    name: str = ""
    path: str = ""
    event: str = ""
    started_at: float = 0.0
    conclusion: Conclusion | None = None
    duration_ms: int = 0
    waiting: SessionWaiting | None = None
    session: SessionCreated | None = None
    released: bool = False
    kept: RunKept | None = None
    notices: list[Notice] = field(default_factory=list)
    annotations: dict[tuple[object, ...], tuple[Annotation, int]] = field(default_factory=dict)
    dropped_annotations: int = 0
    jobs: dict[tuple[str, str | None], JobState] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)

    def job(self, event: JobEvent) -> JobState:
        """Find the job of an event; a leg takes the place that its job held in the list."""
        key = event.job, event.leg
        if key not in self.jobs:
            waiting = self.jobs.get((event.job, None))
            if waiting and event.leg is not None and waiting.started_at is None:
                del self.jobs[event.job, None]
            self.jobs[key] = JobState(event.job, event.leg, one_line(event.leg or event.job))
        return self.jobs[key]

    def ordered(self) -> list[JobState]:
        """Give the jobs in the file's order, legs in the order they started."""
        return sorted(self.jobs.values(), key=lambda job: self.order.get(job.job, len(self.order)))

    def steps(self) -> Iterator[tuple[JobState, StepState]]:
        """Every step that started or ended, with its job."""
        return ((job, job.steps[number]) for job in self.ordered() for number in sorted(job.steps))

    def failed_steps(self) -> list[tuple[JobState, StepState]]:
        """Give the steps that made their job fail."""
        return [(job, step) for job, step in self.steps() if step.conclusion == "failure"]

    def strangers(self) -> list[tuple[JobState, StepState]]:
        """Give the steps whose guest was not the session's: one run has one VM, so there must be none."""
        own = self.session.boot_id if self.session else ""
        return [(job, step) for job, step in self.steps() if step.boot_id and step.boot_id != own]


class Summary:
    """Adds events up to runs. A subscriber itself; call it before reading ``runs``."""

    def __init__(self) -> None:
        self.runs: dict[str, RunState] = {}

    def __call__(self, event: Event, /) -> RunState:
        """Take one event and give the run it belongs to."""
        run = self.runs.get(event.run_id)
        if run is None:
            run = self.runs[event.run_id] = RunState(
                event.run_id, one_line(event.run_id), started_at=event.at
            )
        if isinstance(event, StepEvent):
            _take_step(run, event)
        elif isinstance(event, JobEvent):
            _take_job(run.job(event), event)
            self._note_company()
        else:
            _take_run(run, event)
        return run

    def active(self) -> list[RunState]:
        """Give the runs that have not finished."""
        return [run for run in self.runs.values() if run.conclusion is None]

    def is_news(self, notice: Notice) -> bool:
        """Tell whether a notice is worth showing: runs of one machine say the same of it, errors aside."""
        others = (run for run in self.runs.values() if run.run_id != notice.run_id)
        said = (old for run in others for old in run.notices if old.level != "error")
        return all((old.level, old.message) != (notice.level, notice.message) for old in said)

    def accompanied_jobs(self) -> list[tuple[RunState, JobState]]:
        """Give the jobs of active runs whose lines have to say whose they are."""
        return [(run, job) for run in self.active() for job in run.jobs.values() if job.accompanied]

    def _note_company(self) -> None:
        running = [job for run in self.active() for job in run.jobs.values() if job.running]
        if len(running) > 1:
            for job in running:
                job.accompanied = True


def _take_run(run: RunState, event: Event) -> None:
    match event:
        case RunStarted():
            run.workflow, run.path, run.event = (
                one_line(event.workflow),
                one_line(event.path, 1000),
                one_line(event.event),
            )
            run.name, run.started_at = one_line(event.name), event.at
            run.order = {job: index for index, job in enumerate(event.jobs)}
            run.jobs = {(job, None): JobState(job, None, one_line(name)) for job, name in event.jobs.items()}
        case Notice():
            run.notices.append(event)
            del run.notices[:-MAX_ANNOTATIONS]
        case SessionWaiting():
            run.waiting = event
        case SessionCreated():
            run.session, run.waiting = event, None
        case RunRewound():
            _take_rewind(run, event)
        case RunKept():
            run.kept = event
        case SessionReleased():
            run.released = True
        case RunFinished():
            run.conclusion, run.duration_ms = event.conclusion, event.duration_ms


def _take_rewind(run: RunState, event: RunRewound) -> None:
    """Note what had ended before, of which no more is told. Job ids have no blanks."""
    for place, conclusion in event.done.items():
        job, _, leg = place.partition(" (")
        state = run.job(
            JobEvent(run_id=event.run_id, at=event.at, job=job, leg=leg.removesuffix(")") or None)
        )
        state.conclusion, state.earlier = conclusion, True
        if leg:
            state.name = one_line(place)


def _take_job(job: JobState, event: JobEvent) -> None:
    match event:
        case JobStarted():
            job.name, job.planned, job.started_at = one_line(event.name), event.steps, event.at
        case JobFinished():
            job.name, job.conclusion, job.duration_ms = (
                one_line(event.name),
                event.conclusion,
                event.duration_ms,
            )


def _take_step(run: RunState, event: StepEvent) -> None:
    step = run.job(event).step(event.step)
    match event:
        case StepStarted():
            step.name, step.started_at = one_line(event.name), event.at
        case StepOutput():
            step.tail.add(event.text)
            step.group_lines += event.text.count("\n")
        case StepGroup():
            step.group, step.group_lines = event.title, 0
        case Annotation():
            _annotate(run, event)
        case StepSummary():
            step.markdown = (step.markdown + event.markdown)[:MAX_MARKDOWN]
        case StepFinished():
            _finish_step(step, event)


def _finish_step(step: StepState, event: StepFinished) -> None:
    step.name = one_line(event.name)
    step.outcome, step.conclusion, step.exit_code = event.outcome, event.conclusion, event.exit_code
    step.boot_id, step.duration_ms, step.group = event.boot_id, event.duration_ms, None
    step.started_at = step.started_at or event.at - event.duration_ms / 1000
    if event.conclusion != "failure":
        step.tail.clear()


def _annotate(run: RunState, event: Annotation) -> None:
    """Keep an annotation once, however many legs of a matrix say the same."""
    message, title = event.message[:MAX_MESSAGE], event.title and event.title[:MAX_MESSAGE]
    key = event.level, event.file, event.line, event.column, title, message
    if key in run.annotations:
        known, count = run.annotations[key]
        run.annotations[key] = known, count + 1
    elif len(run.annotations) < MAX_ANNOTATIONS:
        run.annotations[key] = replace(event, message=message, title=title), 1
    else:
        run.dropped_annotations += 1
