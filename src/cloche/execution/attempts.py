"""Attempts: a step of a kept run carried out otherwise, several ways, each in a VM of its own from the same cut."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from cloche.errors import UsageError
from cloche.events import StepFinished, StepOutput
from cloche.records import record
from cloche.workflow.model import Condition, Step
from cloche.workflow.nodes import Scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloche.events import Event
    from cloche.execution.resume import Place
    from cloche.workflow.model import Job, Workflow

MAX_OUTPUT = 256 * 1024
"""Characters of an attempt's output that are kept: the last ones."""
MAX_FILES = 10_000
_LOOKED = 2  # steps after the one at the place: the mark takes that number, the attempt the next
_MARK = "before the attempt"
_LOOK = "what the attempt changed"
_MARKER = '"$RUNNER_TEMP/.cloche-attempt"'
_MARK_SCRIPT = f": > {_MARKER}"
_LOOK_SCRIPT = (
    f"find \"$GITHUB_WORKSPACE\" -path '*/.git' -prune -o -type f -newer {_MARKER} -printf '%P\\n' 2> /dev/null"
    f' | sort | head -n {MAX_FILES} | (cd "$GITHUB_WORKSPACE" && xargs -r -d "\\n" sha256sum)'
)


@record
class Attempt:
    """How an attempt ended.

    ``files`` are those of the workspace that it wrote, with a digest of their content; ``None`` when it could not be
    looked at. ``output`` is the last of what it wrote; ``seconds`` what it took. ``error`` says why there was no end.
    """

    script: str
    conclusion: str = "failure"
    exit_code: int | None = None
    seconds: float = 0.0
    output: str = ""
    files: Mapping[str, str] | None = None
    error: str | None = None


def with_script(workflow: Workflow, place: Place, setups: int, script: str, *, look: bool) -> Workflow:
    """Return the workflow with ``script`` for what the step at ``place`` runs.

    ``setups`` is how many set-up scripts come before a job's steps. With ``look`` a step before it and one after it
    see which files it wrote. UsageError when that step runs no script.
    """
    job = workflow.jobs[place.job]
    index = place.step - setups - 1
    if not 0 <= index < len(job.steps) or job.steps[index].run is None:
        raise UsageError(
            f"step {place.step} of job '{place.job}' runs no script, for which another could be tried",
            hint="--at JOB/STEP goes back to another step",
        )
    step = job.steps[index]
    tried = replace(step, run=Scalar(script, script, step.position, quoted=True))
    around = (_hidden(step, _MARK, _MARK_SCRIPT), tried, _hidden(step, _LOOK, _LOOK_SCRIPT))
    steps = (*job.steps[:index], *(around if look else (tried,)), *job.steps[index + 1 :])
    numbered = tuple(replace(one, index=number) for number, one in enumerate(steps, start=1))
    jobs: dict[str, Job] = {**workflow.jobs, place.job: replace(job, steps=numbered)}
    return replace(workflow, jobs=jobs)


def _hidden(step: Step, name: str, script: str) -> Step:
    where = step.position
    return Step(
        0,
        where,
        name=Scalar(name, name, where, quoted=True),
        condition=Condition("always()", where),
        run=Scalar(script, script, where, quoted=True),
        shell=Scalar("bash", "bash", where, quoted=True),
    )


class Watcher:
    """A subscriber that sees one attempt through, and calls ``done`` once the rest of the run is of no interest."""

    def __init__(self, script: str, place: Place) -> None:
        self._script = script
        self._place = place
        self.done: Callable[[], None] = lambda: None
        self._output: deque[str] = deque()
        self._kept = 0
        self._listing: list[str] = []
        self._finished: StepFinished | None = None
        self._looked: StepFinished | None = None

    def __call__(self, event: Event, /) -> None:
        """Take an event of the attempt's run."""
        place = self._place
        if not isinstance(event, (StepOutput, StepFinished)) or not place.is_of(event.job, event.leg):
            return
        number = event.step - place.step
        if isinstance(event, StepOutput):
            self._take(number, event.text)
        elif number == 1:
            self._finished = event
        elif number == _LOOKED:
            self._looked = event
            self.done()

    def _take(self, number: int, text: str) -> None:
        if number == _LOOKED:
            self._listing.append(text)
            return
        self._output.append(text)
        self._kept += len(text)
        while self._kept - len(self._output[0]) >= MAX_OUTPUT:
            self._kept -= len(self._output.popleft())

    def attempt(self, error: str | None = None) -> Attempt:
        """Return how it ended; ``error`` is why it did not, if it did not."""
        finished = self._finished
        if finished is None:
            return Attempt(self._script, error=error or "the attempt did not begin")
        return Attempt(
            script=self._script,
            conclusion=finished.outcome,
            exit_code=finished.exit_code,
            seconds=finished.duration_ms / 1000,
            output="".join(self._output)[-MAX_OUTPUT:],
            files=self._files(),
        )

    def _files(self) -> Mapping[str, str] | None:
        if self._looked is None or self._looked.outcome != "success":
            return None
        lines = "".join(self._listing).splitlines()
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}
