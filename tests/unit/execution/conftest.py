"""What the tests of this room share."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloche.events import (
    Annotation,
    JobFinished,
    JobStarted,
    Notice,
    RunFinished,
    StepFinished,
    StepGroup,
    StepOutput,
    StepStarted,
    StepSummary,
)
from cloche.execution.control import Timing
from cloche.execution.executor import WorkflowExecutor
from cloche.execution.request import RunRequest
from cloche.pool import VmPool
from cloche.session import SessionManager, SessionRegistry
from cloche.vm.fake import FakeProvider
from cloche.workflow.parse import parse_workflow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cloche.events import Event, JobEvent
    from cloche.execution.results import RunResult


@pytest.fixture(scope="session")
def conformance() -> Callable[[str], list[dict[str, Any]]]:
    """Read a file of the conformance data; skips the test where there is none."""
    folder = os.environ.get("CLOCHE_CONFORMANCE")

    def load(name: str) -> list[dict[str, Any]]:
        if not folder:
            pytest.skip("CLOCHE_CONFORMANCE names no folder of conformance data")
        rows: list[dict[str, Any]] = json.loads(Path(folder, name).read_text("utf-8"))
        return rows

    return load


@dataclass(frozen=True)
class Repository:
    """A git repository of the test's own."""

    path: Path

    def git(self, *arguments: str) -> str:
        """Run git in it."""
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    def commit(self, message: str, files: dict[str, str]) -> str:
        """Write files, commit all of them, and return the commit's id."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository, out of reach of the machine's git configuration."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Mona")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Mona")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "mona@example.org")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "mona@example.org")
    path = tmp_path / "repository"
    path.mkdir()
    made = Repository(path)
    made.git("init", "-q", "-b", "main")
    return made


class Lab:
    """A place to run workflows in: the fake provider behind a real pool and a real session manager.

    ``events`` grows as the run goes on; ``hooks`` are called with each event first, ``executor`` is the one at
    work. Times are short, so that what waits for them is quick.
    """

    def __init__(self, folder: Path, **provider: Any) -> None:
        self.provider = FakeProvider(**provider)
        self.manager = SessionManager(VmPool(self.provider), SessionRegistry(folder / "sessions"))
        self.events: list[Event] = []
        self.hooks: list[Callable[[Event], None]] = []
        self.notes: tuple[str, ...] = ()
        self.executor = self.new_executor()
        self.root = folder

    def new_executor(self) -> WorkflowExecutor:
        return WorkflowExecutor(self.manager, [self._take], notes=lambda: self.notes)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        for hook in self.hooks:
            hook(event)

    def on_output(self, text: str, act: Callable[[], object]) -> None:
        """Act when a step writes ``text``."""

        def hook(event: Event) -> None:
            if isinstance(event, StepOutput) and text in event.text:
                act()

        self.hooks.append(hook)

    async def run(self, text: str, **request: Any) -> RunResult:
        """Carry a workflow out; ``request`` is the RunRequest's fields."""
        workflow = parse_workflow(textwrap.dedent(text), ".github/workflows/test.yml")
        timing = Timing(interrupt=0.05, terminate=0.05, kill=5.0, cancel=5.0, health=5.0)
        return await self.executor.execute_workflow(
            workflow, RunRequest(**{"root": self.root, "timing": timing, **request})
        )

    async def steps(self, steps: str, **request: Any) -> RunResult:
        """Carry out a workflow of one job with these steps."""
        head = "on: push\njobs:\n  job:\n    runs-on: ubuntu-latest\n    steps:\n"
        return await self.run(head + textwrap.indent(textwrap.dedent(steps).strip("\n"), "      "), **request)

    @property
    def transcript(self) -> list[str]:
        """The events, a line each, without ids and times."""
        return [_LINES[type(e)](e) if type(e) in _LINES else e.type for e in self.events]

    def output(self, job: str = "job", step: int | None = None) -> str:
        """What a job or one of its steps wrote."""
        return "".join(
            event.text
            for event in self.events
            if isinstance(event, StepOutput) and event.job == job and step in {None, event.step}
        )

    def finished(self) -> dict[str, str]:
        """The conclusions of steps (``job/1``) and jobs, with the outcome where it is another."""
        ends = {}
        for event in self.events:
            if isinstance(event, StepFinished):
                differs = f" ({event.outcome})" if event.outcome != event.conclusion else ""
                ends[f"{_job(event)}/{event.step}"] = event.conclusion + differs
            elif isinstance(event, JobFinished):
                ends[_job(event)] = event.conclusion
        return ends

    def messages(self, level: str = "error") -> list[str]:
        """The messages of annotations and notices of a level."""
        return [
            event.message
            for event in self.events
            if isinstance(event, Annotation | Notice) and event.level == level
        ]


def _job(event: JobEvent) -> str:
    return event.job if event.leg is None else f"{event.job} [{event.leg}]"


_LINES: dict[type[Event], Callable[[Any], str]] = {
    StepOutput: lambda event: f"{_job(event)}/{event.step} wrote {event.text!r}",
    StepStarted: lambda event: f"{_job(event)}/{event.step} started: {event.name}",
    StepFinished: lambda event: f"{_job(event)}/{event.step} finished: {event.conclusion}",
    StepGroup: lambda event: f"{_job(event)}/{event.step} group {event.title}",
    Annotation: lambda event: f"{_job(event)}/{event.step} {event.level}: {event.message}",
    StepSummary: lambda event: f"{_job(event)}/{event.step} summary {event.markdown!r}",
    JobStarted: lambda event: f"{_job(event)} started: {event.name}, {event.steps} steps",
    JobFinished: lambda event: f"{_job(event)} finished: {event.conclusion}",
    Notice: lambda event: f"{event.level}: {event.message}",
    RunFinished: lambda event: f"run finished: {event.conclusion}",
}


@pytest.fixture
def make_lab(tmp_path: Path) -> Callable[..., Lab]:
    """Make labs whose fake provider is set up in some way."""
    return functools.partial(Lab, tmp_path)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A lab that checks at its end that nothing is left of any session."""
    made = Lab(tmp_path)
    async with made.manager:
        yield made
        assert made.manager.stats().active == 0
