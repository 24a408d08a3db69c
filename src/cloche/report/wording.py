"""The words and signs for what happens in a run, the same in every display."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cloche.records import record
from cloche.report.summary import MAX_MESSAGE
from cloche.report.text import counted, duration, one_line, visible

if TYPE_CHECKING:
    from cloche.events import Annotation, Conclusion, RunKept, RunRewound, SessionCreated, SessionWaiting
    from cloche.report.summary import JobState, RunState, StepState

STOPPED = "■"
MARKS = {"success": "✓", "failure": "✗", "skipped": "⊘", "cancelled": STOPPED}
WAITING = "○"
RUNNING = "●"
STARTED = "▶"
FOLDED = "▸"
OPEN = "▾"

_ENDINGS = {
    "success": "succeeded",
    "failure": "failed",
    "cancelled": "was cancelled",
    "skipped": "was skipped",
    None: "did not finish",
}
_SOURCES = {"warm": "was waiting, taken in", "restored": "restored in", "booted": "booted in"}
_NO_VM = {
    "sandbox": "sandbox on this host's own kernel, no VM",
    "fake": "in-memory stand-in, no VM: nothing really runs",
}

_BRIEF_ID = 8

MANY_ROWS = 40
"""Rows of the closing table past which jobs that did well are shown without their steps."""


def mark(state: RunState | JobState | StepState) -> str:
    """Give the sign of an ending; what failed has the sign of failure even where it is forgiven."""
    if state.conclusion is None:
        return WAITING if state.started_at is None else STOPPED
    return MARKS["failure" if getattr(state, "forgiven", False) else state.conclusion]


def guest_facts(session: SessionCreated, *, brief: bool = False) -> list[str]:
    """Say what the run got to run in, so that nobody has to wonder whether that was a real guest."""
    made = f"{_SOURCES.get(session.source, one_line(session.source))} {duration(session.duration_ms)}"
    boot = f"boot id {one_line(session.boot_id)[: _BRIEF_ID if brief else None]}"
    kernel = f"kernel {one_line(session.kernel)}"
    if session.provider in _NO_VM:
        return [f"{one_line(session.vm_id)}: {_NO_VM[session.provider]}", made, kernel, boot]
    return [f"VM {one_line(session.vm_id)}", f"{one_line(session.provider)}, {made}", f"guest {kernel}", boot]


def heading(run: RunState) -> tuple[str, str]:
    """Name a run as GitHub does, and say what it is: its own name before the workflow's, if it has one."""
    facts = [run.workflow] if run.name else []
    return run.name or run.workflow, " · ".join([*facts, run.event, run.path])


def waiting(event: SessionWaiting) -> str:
    """Say that a run waits, and its place in the line."""
    place = "next in the line" if event.place == 1 else f"number {event.place} in the line"
    sessions = counted(event.limit, "session")
    return f"waiting for a place: {place} ({sessions} at most on this machine)"


def rewound(event: RunRewound) -> str:
    """Say what a run goes on from."""
    files = f", with {counted(event.files, 'changed file')}" if event.files else ""
    return f"going on from {one_line(event.of)}, before {_place(event)}{files}"


def _place(event: RunRewound | RunKept) -> str:
    job = f"{event.job} ({event.leg})" if event.leg else event.job
    return f"step {event.step} of job {one_line(job)}"


def ending(run: RunState) -> str:
    """Say the verdict on a run in one line."""
    took = f" after {duration(run.duration_ms)}" if run.conclusion else ""
    return f"{mark(run)} {run.workflow} {_ENDINGS[run.conclusion]}{took}"


def step_remark(step: StepState) -> str:
    """Say about a step's end what its mark does not."""
    if step.conclusion is None:
        return "unfinished"
    if step.forgiven:
        return f"{_exit(step)}, the job goes on (continue-on-error)"
    if step.conclusion == "failure":
        return _exit(step)
    return step.conclusion if step.conclusion in {"skipped", "cancelled"} else ""


def _exit(step: StepState) -> str:
    return f"exit code {step.exit_code}" if step.exit_code else "failed"


def job_remark(job: JobState) -> str:
    """Say about a job's end what its mark does not."""
    if job.conclusion is None:
        return "unfinished" if job.started_at else "not started"
    if job.earlier:
        return f"{job.conclusion} before" if job.conclusion in {"skipped", "cancelled"} else "before"
    return job.conclusion if job.conclusion in {"skipped", "cancelled"} else ""


def job_label(run: RunState, job: JobState, *, with_workflow: bool) -> str:
    """Name a job, with its workflow where several are shown, as GitHub names checks."""
    return f"{run.workflow} / {job.name}" if with_workflow else job.name


def step_label(job: JobState, step: StepState) -> str:
    """Name a step with its job."""
    return f"{job.name} / {step.name}"


def annotation_place(annotation: Annotation) -> str:
    """Write ``file:line:column`` as far as it is known, empty without a file."""
    if not annotation.file:
        return ""
    place = [one_line(annotation.file, 1000), annotation.line, annotation.column if annotation.line else None]
    return ":".join(str(part) for part in place if part)


def annotation_message(annotation: Annotation) -> str:
    """Join title and message: visible text of one or more lines."""
    message = visible(annotation.message[:MAX_MESSAGE]).strip("\n")
    title = one_line(annotation.title) if annotation.title else ""
    return f"{title}: {message}" if title and message else title or message


def annotation_text(annotation: Annotation, count: int = 1) -> str:
    """Write an annotation as compilers do: ``file:line:column: level: message``."""
    place = annotation_place(annotation)
    message = f"{annotation.level}: {annotation_message(annotation)}{times(count)}"
    return f"{place}: {message}" if place else message


def times(count: int) -> str:
    """Say how often something was said, if more than once."""
    return f" ({count} times)" if count > 1 else ""


def worst_first(run: RunState) -> list[tuple[Annotation, int]]:
    """Give what was annotated, and how often, the gravest first; debug lines are not among them."""
    levels = ("error", "warning", "notice")
    kept = [item for item in run.annotations.values() if item[0].level in levels]
    return sorted(kept, key=lambda item: levels.index(item[0].level))


def annotation_tally(run: RunState) -> str:
    """Count by level: ``2 errors, 1 warning``."""
    totals = {"error": 0, "warning": 0, "notice": 0}
    for annotation, count in worst_first(run):
        totals[annotation.level] += count
    said = [counted(number, level) for level, number in totals.items() if number]
    return ", ".join([*said, f"{run.dropped_annotations} more not kept"] if run.dropped_annotations else said)


@record
class Row:
    """A line of the closing table: a job (``depth`` 0) or a step (1). Times are milliseconds of the run."""

    depth: int
    mark: str
    name: str
    conclusion: Conclusion | None
    forgiven: bool
    remark: str
    start: float
    duration: float
    earlier: bool = False

    @property
    def timed(self) -> bool:
        """Whether it took time, and in this run."""
        return self.conclusion not in {"skipped", None} and not self.earlier


def rows(run: RunState) -> list[Row]:
    """Give the closing table: empty if nothing started, without the steps of jobs that did well if long."""
    jobs = run.ordered() if any(job.started_at or job.conclusion for job in run.jobs.values()) else []
    long = len(jobs) + sum(len(job.steps) for job in jobs) > MANY_ROWS
    table = []
    for job in jobs:
        start = _since(run, job.started_at)
        sign, remark = mark(job), job_remark(job)
        table.append(
            Row(0, sign, job.name, job.conclusion, False, remark, start, job.duration_ms, earlier=job.earlier)
        )
        if job.conclusion != "success" or not long:
            table += [_step_row(run, job.steps[number]) for number in sorted(job.steps)]
    return table


def _step_row(run: RunState, step: StepState) -> Row:
    start = _since(run, step.started_at)
    sign, remark = mark(step), step_remark(step)
    return Row(1, sign, step.name, step.conclusion, step.forgiven, remark, start, step.duration_ms)


def _since(run: RunState, at: float | None) -> float:
    return max(((at or run.started_at) - run.started_at) * 1000, 0)


_EXIT_HINTS = {
    126: "the program is there but may not be run: is it executable, and built for this machine?",
    127: "a command was not found: install it in a step before, or use an image that has it (--image)",
    137: "the step was killed, most often for want of memory: try --memory 4G",
}


def next_step(run: RunState) -> str | None:
    """Say what a person may do next about a run that failed."""
    if run.conclusion != "failure":
        return None
    failed = run.failed_steps()
    for _, step in failed:
        if step.exit_code in _EXIT_HINTS:
            return f"{step.name}: {_EXIT_HINTS[step.exit_code]}"
    if run.kept is not None:
        place = _place(run.kept)
        return f"mend it and go on from before {place}: cloche rewind {one_line(run.run_id)}"
    jobs = [job for job, _ in failed] or [job for job in run.ordered() if job.conclusion == "failure"]
    if not jobs or not run.path:
        return None
    event = [] if run.event == "push" else ["-e", run.event]
    return "run this job again: " + shlex.join(["cloche", "run", run.path, *event, "-j", jobs[0].job])


def evidence(run: RunState) -> str | None:
    """Say where the steps really ran: one VM and one boot, as the guest itself said at every step."""
    ran = sum(1 for _, step in run.steps() if step.boot_id)
    if run.session is None or not ran:
        return None
    what = "in" if run.session.provider in _NO_VM else "in VM"
    strangers = len(run.strangers())
    boots = f"BUT {strangers} of them saw another boot id" if strangers else "same boot id throughout"
    released = "released" if run.released else "not released"
    return f"{counted(ran, 'step')} {what} {one_line(run.session.vm_id)}, {boots}, {released}"
