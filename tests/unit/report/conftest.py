"""A run to tell, and a terminal to see it on."""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING

import pytest

from cloche.events import (
    Annotation,
    JobFinished,
    JobStarted,
    Notice,
    RunFinished,
    RunStarted,
    SessionCreated,
    SessionReleased,
    SessionWaiting,
    StepFinished,
    StepGroup,
    StepOutput,
    StepStarted,
    StepSummary,
)
from cloche.report.console import ConsoleReporter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloche.events import AnnotationLevel, Conclusion, Event

BOOT_ID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff"


class Story:
    """Makes the events of one run, with defaults for what a test does not care about."""

    def __init__(self, run_id: str = "r1", workflow: str = "CI", vm_id: str = "vm-1") -> None:
        self.run_id, self.workflow, self.vm_id = run_id, workflow, vm_id
        self.at = 1000.0

    def started(self, name: str = "", **jobs: str) -> RunStarted:
        return RunStarted(
            name=name,
            run_id=self.run_id,
            at=self.at,
            workflow=self.workflow,
            path=".github/workflows/ci.yml",
            event="push",
            jobs=jobs or {"build": "Build"},
        )

    def waiting(self, place: int, limit: int = 4) -> SessionWaiting:
        return SessionWaiting(run_id=self.run_id, at=self.at, place=place, limit=limit)

    def notice(self, message: str, level: AnnotationLevel = "notice") -> Notice:
        return Notice(run_id=self.run_id, at=self.at, level=level, message=message)

    def session(self, provider: str = "qemu", source: str = "restored") -> SessionCreated:
        return SessionCreated(
            run_id=self.run_id,
            at=self.at,
            session_id="s-1",
            vm_id=self.vm_id,
            provider=provider,
            source=source,
            duration_ms=87.4,
            kernel="6.1.0-56",
            boot_id=BOOT_ID,
        )

    def released(self) -> SessionReleased:
        return SessionReleased(run_id=self.run_id, at=self.at, session_id="s-1", vm_id=self.vm_id)

    def job(
        self, job: str = "build", name: str = "Build", leg: str | None = None, steps: int = 1
    ) -> JobStarted:
        return JobStarted(run_id=self.run_id, at=self.at, job=job, leg=leg, name=name, steps=steps)

    def job_done(
        self,
        job: str = "build",
        name: str = "Build",
        leg: str | None = None,
        conclusion: Conclusion = "success",
        ms: int = 2000,
    ) -> JobFinished:
        return JobFinished(
            run_id=self.run_id,
            at=self.at,
            job=job,
            leg=leg,
            name=name,
            conclusion=conclusion,
            outputs={},
            duration_ms=ms,
        )

    def step(
        self, step: int = 1, name: str = "Compile", job: str = "build", leg: str | None = None
    ) -> StepStarted:
        return StepStarted(run_id=self.run_id, at=self.at, job=job, leg=leg, step=step, id="", name=name)

    def output(self, text: str, step: int = 1, job: str = "build", leg: str | None = None) -> StepOutput:
        return StepOutput(run_id=self.run_id, at=self.at, job=job, leg=leg, step=step, text=text)

    def group(self, title: str | None, step: int = 1, job: str = "build") -> StepGroup:
        return StepGroup(run_id=self.run_id, at=self.at, job=job, leg=None, step=step, title=title)

    def annotation(
        self,
        message: str,
        level: AnnotationLevel = "error",
        *,
        step: int = 1,
        job: str = "build",
        leg: str | None = None,
        title: str | None = None,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> Annotation:
        return Annotation(
            run_id=self.run_id,
            at=self.at,
            job=job,
            leg=leg,
            step=step,
            level=level,
            message=message,
            title=title,
            file=file,
            line=line,
            column=column,
        )

    def summary(self, markdown: str, step: int = 1, job: str = "build") -> StepSummary:
        return StepSummary(run_id=self.run_id, at=self.at, job=job, leg=None, step=step, markdown=markdown)

    def step_done(
        self,
        step: int = 1,
        name: str = "Compile",
        job: str = "build",
        leg: str | None = None,
        *,
        conclusion: Conclusion = "success",
        outcome: Conclusion | None = None,
        exit_code: int | None = 0,
        boot_id: str | None = BOOT_ID,
        ms: int = 1000,
    ) -> StepFinished:
        return StepFinished(
            run_id=self.run_id,
            at=self.at,
            job=job,
            leg=leg,
            step=step,
            id="",
            name=name,
            vm_id=self.vm_id,
            boot_id=boot_id,
            outcome=outcome or conclusion,
            conclusion=conclusion,
            exit_code=exit_code,
            outputs={},
            duration_ms=ms,
        )

    def skipped(self, step: int, name: str, job: str = "build") -> StepFinished:
        return self.step_done(step, name, job, conclusion="skipped", exit_code=None, boot_id=None, ms=0)

    def finished(self, conclusion: Conclusion = "success", ms: int = 3000) -> RunFinished:
        return RunFinished(run_id=self.run_id, at=self.at, conclusion=conclusion, duration_ms=ms)

    def failing(self) -> list[Event]:
        """One job that fails in its second step."""
        return [
            self.started(),
            self.session(),
            self.job(steps=3),
            self.step(),
            self.output("compiling\n"),
            self.step_done(),
            self.step(2, "Test"),
            self.output("E   assert 1 == 2\n", 2),
            self.annotation("assert 1 == 2", step=2, file="tests/test_sum.py", line=12),
            self.step_done(2, "Test", conclusion="failure", exit_code=1, ms=1500),
            self.skipped(3, "Upload"),
            self.job_done(conclusion="failure", ms=2600),
            self.released(),
            self.finished("failure"),
        ]


class Screen(io.StringIO):
    """A terminal's screen and what scrolled off it. It knows what the console uses, and refuses everything else."""

    encoding = "utf-8"
    _PIECES = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|([^\x1b\n\r]+)|(.)", re.DOTALL)

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows
        self.lines = [""]
        self.row = 0
        self.cursor_visible = True
        self.wraps = True
        self.raw = ""
        self.frames = 0

    def isatty(self) -> bool:
        return True

    def size(self) -> os.terminal_size:
        return os.terminal_size((self.columns, self.rows))

    def write(self, text: str) -> int:
        self.raw += text
        for private, number, final, plain, single in self._PIECES.findall(text):
            if final:
                self._obey(private, number, final)
            elif plain:
                self._type(plain)
            elif single == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            else:
                assert single == "\r", repr(single)
        return len(text)

    def resize(self, columns: int) -> None:
        """Fold the lines as most terminals do when they get narrower; the cursor stays behind the text."""
        whole, self.lines, self.columns = self.lines[:-1], [], columns
        for line in whole:
            self.lines += [line[start : start + columns] for start in range(0, len(line) or 1, columns)]
        self.lines.append("")
        self.row = len(self.lines) - 1

    def shown(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")

    def _type(self, text: str) -> None:
        line = self.lines[self.row] + text
        self.lines[self.row] = line if self.wraps else line[: self.columns]

    def _obey(self, private: str, number: str, final: str) -> None:
        if private:
            assert number + final in {"25l", "25h", "7l", "7h", "2026h", "2026l"}
            self.frames += number + final == "2026h"
            if number == "25":
                self.cursor_visible = final == "h"
            if number == "7":
                self.wraps = final == "h"
        elif final == "A":
            self.row -= int(number)
            assert self.row >= max(len(self.lines) - self.rows, 0), "nothing above the screen can be reached"
        elif final == "J":
            del self.lines[self.row + 1 :]
            self.lines[self.row] = ""
        else:
            assert final == "m", final


class Stage:
    """A console reporter on a screen, with a clock that the test turns and no thread."""

    def __init__(self, columns: int, rows: int, env: Mapping[str, str], *, multiple: bool) -> None:
        self.screen = Screen(columns, rows)
        self.now = 1000.0
        self.reporter = ConsoleReporter(
            self.screen,
            self.screen,
            {"TERM": "xterm-256color", **env},
            multiple=multiple,
            animate=False,
            clock=lambda: self.now,
            size=self.screen.size,
        )

    def play(self, *events: Event) -> str:
        """Show events, draw a frame, and tell what is on the screen."""
        for event in events:
            self.reporter(event)
        self.reporter.draw()
        return self.screen.shown()

    def whole(self, *events: Event) -> str:
        """Show events from the first to the end of the display."""
        with self.reporter:
            for event in events:
                self.reporter(event)
        return self.screen.shown()


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def another_story() -> Story:
    return Story("r2", "Docs", "vm-2")


@pytest.fixture
def stage() -> Callable[..., Stage]:
    def make(columns: int = 80, rows: int = 24, *, multiple: bool = False, **env: str) -> Stage:
        return Stage(columns, rows, env, multiple=multiple)

    return make
