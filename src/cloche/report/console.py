"""A run on a terminal: output scrolls by above a live tree of jobs and steps; a summary stands at the end.

The tree is redrawn a few times a second at most, whatever the guest does; between two frames output is
collected, never more than a bounded piece of it. Groups stay folded to their title unless their step fails.
Rich brings styles and Markdown (painter.py); the live lines are our own (region.py), because they must cost
nothing under a flood and survive a resize.
"""

from __future__ import annotations

import os
import threading
import time
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
)
from cloche.report import table, wording
from cloche.report.folds import Folds
from cloche.report.painter import Painter
from cloche.report.region import Line, Region
from cloche.report.sink import Sink
from cloche.report.summary import Summary
from cloche.report.text import (
    cells,
    counted,
    duration,
    elided,
    indented,
    one_line,
    padded,
    visible,
    without_colour,
)
from cloche.report.tree import FRAMES_PER_SECOND, live_tree, style_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from io import TextIOBase
    from types import TracebackType
    from typing import Self, TextIO

    from cloche.events import Event
    from cloche.report.summary import JobState, RunState, StepState
    from cloche.report.tree import Span

_FRAME = 1 / FRAMES_PER_SECOND
_MOST_PENDING = 1024 * 1024
_LABEL_WIDTH = 24
_LABEL_STYLES = ("cyan", "magenta", "blue", "green", "yellow")
_STEP, _OUTPUT, _GROUPED = "  ", "    ", "      "
_FOLDED_LINES = 500
_MARKDOWN_SHOWN = 128 * 1024
_FEW_ROWS = 12


class ConsoleReporter:
    """Shows runs on the terminal ``stdout``.

    Use it as a context manager: a thread turns the spinners until the context is left. ``clock`` gives
    seconds since the epoch, ``size`` the terminal's size; they and ``animate`` are for tests and pictures.
    """

    def __init__(
        self,
        stdout: TextIO | TextIOBase,
        stderr: TextIO | TextIOBase,
        env: Mapping[str, str],
        *,
        multiple: bool = False,
        debug: bool = False,
        animate: bool = True,
        clock: Callable[[], float] = time.time,
        size: Callable[[], os.terminal_size] | None = None,
    ) -> None:
        self._sink = Sink(stdout)
        self._log = None if stderr.isatty() else Sink(stderr)
        self._size = size or (lambda: _terminal_size(stdout, env))
        self._paint = Painter(stdout, env)
        self._region = Region(self._sink)
        self._multiple = multiple
        self._debug = debug
        self._clock = clock
        self._summary = Summary()
        self._folds: dict[tuple[str, str, str | None, int], Folds] = {}
        self._pending: list[str] = []
        self._pending_size = 0
        self._drawn_at = 0.0
        self._resting = False
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._ticker = (
            threading.Thread(target=self._tick, name="cloche-console", daemon=True) if animate else None
        )

    def __enter__(self) -> Self:
        if self._ticker:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the summaries still owed, of runs that were cut short too, and show the cursor again."""
        self._stop.set()
        if self._ticker:
            self._ticker.join()
        with self._lock:
            runs = list(self._summary.runs.values())
            for run in runs if self._multiple else self._summary.active():
                self._close(run)
            for run in runs if len(runs) > 1 else []:
                self._line((wording.ending(run), f"bold {style_of(run.conclusion)}"))
            self._region.update(self._taken(), [], self._size())

    def __call__(self, event: Event, /) -> None:
        """Show one event."""
        with self._lock:
            run = self._summary(event)
            if isinstance(event, JobEvent):
                self._job_event(run, run.job(event), event)
            else:
                self._run_event(run, event)
            if self._due():
                self.draw()
            elif self._pending_size > _MOST_PENDING:
                self._region.update(self._taken(), None, self._size())

    def log(self, line: str) -> None:
        """Write a line of Cloche's own log above the live lines, or to a standard error that is elsewhere."""
        with self._lock:
            if self._log:
                self._log.write(line.rstrip("\n") + "\n")
            else:
                self._put(indented(visible(line), ""))

    def draw(self) -> None:
        """Show what came since the last frame, and the tree as it is now."""
        with self._lock:
            size, self._drawn_at = self._size(), self._clock()
            if self._resting:
                return
            budget = max(min(size.lines // 2, size.lines - 3), 1)
            tree = live_tree(self._summary, self._drawn_at, size.columns, budget)
            lines = [Line(self._paint(line), sum(cells(text) for text, _ in line)) for line in tree]
            blank = [Line("", 0)] if lines and size.lines > _FEW_ROWS else []
            self._region.update(self._taken(), [*blank, *lines], size)

    def rest(self) -> None:
        """Leave the terminal to somebody else, without live lines, until ``wake``; no events may come meanwhile."""
        with self._lock:
            self._region.update(self._taken(), [], self._size())
            self._resting = True

    def wake(self) -> None:
        """Have the terminal again."""
        with self._lock:
            self._resting = False

    def _due(self) -> bool:
        return abs(self._clock() - self._drawn_at) >= _FRAME  # the clock may be set back

    def _tick(self) -> None:
        while not self._stop.wait(_FRAME):
            with self._lock:
                if self._due():
                    self.draw()

    def _put(self, text: str) -> None:
        """Let whole lines scroll by with the next frame."""
        self._pending.append(text)
        self._pending_size += len(text)

    def _taken(self) -> str:
        text = "".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        return text

    def _line(self, *spans: Span) -> None:
        self._put(self._paint(spans) + "\n")

    def _facts(self, facts: Iterable[str], columns: int) -> None:
        """Put facts in a row, a new line where the terminal ends."""
        line = ""
        for fact in facts:
            longer = f"{line} · {fact}" if line else fact
            if line and cells(longer) > columns:
                self._line((line, ""))
                longer = fact
            line = longer
        self._line((line, ""))

    # --- what is no job's

    def _run_event(self, run: RunState, event: Event) -> None:
        columns = self._size().columns
        match event:
            case RunStarted():
                name, rest = wording.heading(run)
                self._line((name, "bold"), (f" · {rest}", "dim"))
            case SessionWaiting():
                whose = f"{run.workflow}: " if self._several() else ""
                self._line((f"{whose}{wording.waiting(event)}", "dim"))
            case SessionCreated():
                facts = wording.guest_facts(event, brief=True)
                self._facts([run.workflow, *facts] if self._several() else facts, columns)
            case RunRewound():
                self._line((wording.rewound(event), "dim"))
            case Notice() if self._summary.is_news(event) and (event.level != "debug" or self._debug):
                whose = f"{run.workflow}: " if self._several() else ""
                message = whose + visible(event.message)
                self._put(self._painted(table.signed(event.level, message, columns=columns)))
            case RunFinished() if self._multiple:
                self._line((wording.ending(run), f"bold {style_of(run.conclusion)}"))
            case RunFinished():
                self._close(run)

    def _several(self) -> bool:
        return self._multiple or len(self._summary.runs) > 1

    def _named(self, run: RunState, job: JobState) -> str:
        return job.name if job.accompanied else self._label(run, job)

    def _label(self, run: RunState, job: JobState) -> str:
        return wording.job_label(run, job, with_workflow=self._several())

    # --- jobs and steps

    def _job_event(self, run: RunState, job: JobState, event: JobEvent) -> None:
        match event:
            case StepOutput():
                self._output(run, job, event)
            case StepGroup():
                self._group(run, job, event)
            case Annotation() if event.level != "debug" or self._debug:
                self._head(run, job, job.step(event.step))
                prefix = self._prefix(run, job)
                room = self._size().columns - cells(without_colour(prefix)) - len(_STEP)
                for line in table.annotation_lines(event, columns=room):
                    self._put(f"{prefix}{_STEP}{self._paint(line)}\n")
            case StepFinished():
                self._finished(run, job, job.step(event.step))
            case JobStarted():
                self._say(run, job, "", (wording.RUNNING, "cyan"), (f" {self._named(run, job)}", "bold"))
            case JobFinished():
                spans = _ended(
                    job, self._named(run, job), wording.job_remark(job), style_of(job.conclusion), "bold"
                )
                self._say(run, job, "", *spans)

    def _say(self, run: RunState, job: JobState, indent: str, *spans: Span) -> None:
        self._put(f"{self._prefix(run, job)}{indent}{self._paint(spans)}\n")

    def _folds_of(self, run: RunState, job: JobState, step: StepState) -> Folds:
        return self._folds.setdefault((run.run_id, job.job, job.leg, step.number), Folds())

    def _head(self, run: RunState, job: JobState, step: StepState) -> None:
        """Name the step before the first thing it has to say."""
        folds = self._folds_of(run, job, step)
        if not folds.spoke:
            folds.spoke = True
            self._say(run, job, _STEP, (wording.STARTED, "cyan"), (f" {step.name}", "bold"))

    def _output(self, run: RunState, job: JobState, event: StepOutput) -> None:
        step = job.step(event.step)
        folds = self._folds_of(run, job, step)
        if folds.open:
            folds.open.tail.add(event.text)
            return
        self._head(run, job, step)
        text = visible(event.text, colour=self._paint.colour)
        self._put(indented(text, self._prefix(run, job) + _OUTPUT))

    def _group(self, run: RunState, job: JobState, event: StepGroup) -> None:
        step = job.step(event.step)
        self._fold(run, job, step)
        if event.title is not None:
            self._folds_of(run, job, step).begin(one_line(event.title))

    def _fold(self, run: RunState, job: JobState, step: StepState) -> None:
        """Close the open group, if there is one, and show its title."""
        fold = self._folds_of(run, job, step).end()
        if fold:
            self._head(run, job, step)
            said = f" {fold.title} · {counted(fold.tail.lines, 'line')}"
            self._say(run, job, _OUTPUT, (wording.FOLDED + said, "dim"))

    def _finished(self, run: RunState, job: JobState, step: StepState) -> None:
        if step.outcome == "failure":
            self._unfold(run, job, step)
        else:
            self._fold(run, job, step)
        style = style_of(step.conclusion, forgiven=step.forgiven)
        self._say(run, job, _STEP, *_ended(step, step.name, wording.step_remark(step), style))
        self._folds.pop((run.run_id, job.job, job.leg, step.number), None)

    def _unfold(self, run: RunState, job: JobState, step: StepState) -> None:
        """Show what the groups of a failed step hid."""
        folds = self._folds_of(run, job, step)
        folds.end()
        for fold in folds.closed:
            self._head(run, job, step)
            self._say(run, job, _OUTPUT, (f"{wording.OPEN} {fold.title}", "dim"))
            lines = fold.tail.last(_FOLDED_LINES, colour=self._paint.colour)
            hidden = fold.tail.lines - len(lines)
            prefix = self._prefix(run, job) + _GROUPED
            if hidden > 0:
                self._say(run, job, _GROUPED, (f"… {counted(hidden, 'line')} before", "dim"))
            if lines:
                self._put(indented("\n".join(lines), prefix))

    def _prefix(self, run: RunState, job: JobState) -> str:
        """Say whose line it is, once several jobs ran side by side."""
        if not job.accompanied:
            return ""
        width = max(cells(self._label(*pair)) for pair in self._summary.accompanied_jobs())
        width = min(width, _LABEL_WIDTH, self._size().columns // 4)
        label = padded(elided(self._label(run, job), width), width)
        style = _LABEL_STYLES[list(run.jobs).index((job.job, job.leg)) % len(_LABEL_STYLES)]
        return self._paint([(label, style), (" │ ", "dim")])

    # --- the end

    def _close(self, run: RunState) -> None:
        """Write the summary of a run."""
        columns = self._size().columns
        title = self._paint([(run.workflow, "bold underline")]) + "\n" if self._several() else ""
        parts = [
            title + self._painted(table.closing_table(run, columns)),
            *self._step_summaries(run, columns),
            self._painted(table.annotation_list(run, columns)),
            self._painted(table.failure_lines(run, columns)),
            self._painted(table.verdict_lines(run, columns)),
        ]
        self._put("".join(f"\n{part}" for part in parts if part))

    def _painted(self, lines: Iterable[Iterable[Span]]) -> str:
        return "".join(self._paint(line) + "\n" for line in lines)

    def _step_summaries(self, run: RunState, columns: int) -> Iterable[str]:
        room = _MARKDOWN_SHOWN
        for job, step in run.steps():
            if step.markdown.strip() and room > 0:
                title = self._paint([(f"Summary of {wording.step_label(job, step)}", "bold")])
                yield f"{title}\n{self._paint.markdown(step.markdown[:room], columns)}"
                room -= len(step.markdown)


def _ended(
    state: JobState | StepState, name: str, remark: str, mark_style: str, style: str = ""
) -> list[Span]:
    spans: list[Span] = [(wording.mark(state), mark_style), (f" {name}", style)]
    if remark:
        spans.append((f" · {remark}", mark_style))
    if state.conclusion != "skipped":
        spans.append((f" · {duration(state.duration_ms)}", "dim"))
    return spans


def _terminal_size(stream: TextIO | TextIOBase, env: Mapping[str, str]) -> os.terminal_size:
    """Ask the terminal for its size now; COLUMNS and LINES only where it does not tell."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        size = os.terminal_size((0, 0))
    said = [int(env[name]) if env.get(name, "").isdigit() else 0 for name in ("COLUMNS", "LINES")]
    return os.terminal_size((size.columns or said[0] or 80, size.lines or said[1] or 24))
