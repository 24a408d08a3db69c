"""A run as plain lines, for logs and where no terminal is: no colour, nothing moves, nothing is folded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.events import (
    Annotation,
    JobEvent,
    JobFinished,
    JobStarted,
    Notice,
    RunFinished,
    RunRewound,
    RunStarted,
    SessionCreated,
    SessionWaiting,
    StepFinished,
    StepGroup,
    StepOutput,
    StepStarted,
)
from cloche.report import wording
from cloche.report.closing import closing
from cloche.report.sink import Sink
from cloche.report.summary import Summary
from cloche.report.text import cells, duration, elided, indented, one_line, padded, visible

if TYPE_CHECKING:
    from io import TextIOBase
    from types import TracebackType
    from typing import Self, TextIO

    from cloche.events import Event
    from cloche.report.summary import JobState, RunState, StepState

_LABEL_WIDTH = 28
_STEP, _OUTPUT, _GROUPED = "  ", "    ", "      "


class Plain:
    """Writes lines to ``stdout`` as events come, and ``log`` lines to ``stderr``.

    With ``multiple`` workflows their summaries wait for the end, so that they stand together. ``debug`` shows
    ``::debug::`` lines too.
    """

    def __init__(
        self,
        stdout: TextIO | TextIOBase,
        stderr: TextIO | TextIOBase,
        *,
        multiple: bool = False,
        debug: bool = False,
    ) -> None:
        self._out = Sink(stdout)
        self._log = Sink(stderr)
        self._multiple = multiple
        self._debug = debug
        self._summary = Summary()

    def __call__(self, event: Event, /) -> None:
        """Show one event."""
        run = self._summary(event)
        if isinstance(event, JobEvent):
            self._job_event(run, run.job(event), event)
            return
        match event:
            case RunStarted():
                self._out.write(" · ".join(wording.heading(run)) + "\n")
            case SessionWaiting():
                self._out.write(f"{self._workflow(run)}{wording.waiting(event)}\n")
            case SessionCreated():
                self._out.write(f"{self._workflow(run)}{' · '.join(wording.guest_facts(event))}\n")
            case RunRewound():
                self._out.write(f"{self._workflow(run)}{wording.rewound(event)}\n")
            case Notice() if self._summary.is_news(event) and (event.level != "debug" or self._debug):
                self._out.write(indented(f"{event.level}: {visible(event.message)}", self._workflow(run)))
            case RunFinished():
                self._out.write(f"{wording.ending(run)}\n" if self._multiple else closing(run))

    def log(self, line: str) -> None:
        """Write a line of Cloche's own log."""
        self._log.write(line.rstrip("\n") + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the summaries that are still owed, of runs that were cut short too."""
        runs = self._summary.runs.values()
        owed = runs if self._multiple else self._summary.active()
        verdicts = [f"{wording.ending(run)}\n" for run in runs] if len(runs) > 1 else []
        self._out.write("".join([closing(run, named=len(runs) > 1) for run in owed] + verdicts))

    def _job_event(self, run: RunState, job: JobState, event: JobEvent) -> None:
        match event:
            case StepOutput():
                step = job.step(event.step)
                self._say(run, job, _GROUPED if step.group is not None else _OUTPUT, visible(event.text))
            case JobStarted():
                self._say(run, job, "", f"{wording.RUNNING} {self._named(run, job)}")
            case JobFinished():
                remark = wording.job_remark(job)
                self._say(run, job, "", _ended(self._named(run, job), remark, job))
            case StepStarted():
                step = job.step(event.step)
                self._say(run, job, _STEP, f"{wording.STARTED} {self._numbered(job, step)}")
            case StepFinished():
                step = job.step(event.step)
                self._say(run, job, _STEP, _ended(self._numbered(job, step), wording.step_remark(step), step))
            case StepGroup(title=str() as title):
                self._say(run, job, _OUTPUT, f"{wording.OPEN} {one_line(title)}")
            case Annotation() if event.level != "debug" or self._debug:
                self._say(run, job, _OUTPUT, wording.annotation_text(event))

    def _say(self, run: RunState, job: JobState, indent: str, text: str) -> None:
        self._out.write(indented(text, self._prefix(run, job) + indent))

    def _prefix(self, run: RunState, job: JobState) -> str:
        """Say whose line it is, once several jobs ran side by side."""
        if not job.accompanied:
            return ""
        width = max(cells(self._label(*pair)) for pair in self._summary.accompanied_jobs())
        width = min(width, _LABEL_WIDTH)
        return f"{padded(elided(self._label(run, job), width), width)} │ "

    def _named(self, run: RunState, job: JobState) -> str:
        return job.name if job.accompanied else self._label(run, job)

    def _label(self, run: RunState, job: JobState) -> str:
        return wording.job_label(run, job, with_workflow=self._several())

    def _workflow(self, run: RunState) -> str:
        return f"{run.workflow} │ " if self._several() else ""

    def _several(self) -> bool:
        return self._multiple or len(self._summary.runs) > 1

    @staticmethod
    def _numbered(job: JobState, step: StepState) -> str:
        return f"{step.number}/{max(job.planned, step.number)} {step.name}"


def _ended(name: str, remark: str, state: JobState | StepState) -> str:
    facts = [f"{wording.mark(state)} {name}", remark]
    if state.conclusion != "skipped":
        facts.append(duration(state.duration_ms))
    return " · ".join(fact for fact in facts if fact)
