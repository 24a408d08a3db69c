"""How a run is shown that goes on from another one, and one that can be gone on with."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cloche.events import Event, RunKept, RunRewound
from cloche.report import wording
from cloche.report.plain import Plain
from cloche.report.summary import Summary

if TYPE_CHECKING:
    from tests.unit.report.conftest import Story


def shown(events: list[Event]) -> str:
    out = io.StringIO()
    with Plain(out, io.StringIO()) as plain:
        for event in events:
            plain(event)
    return out.getvalue()


def going_on(story: Story, leg: str | None = None) -> list[Event]:
    started = story.started(lint="Lint", build="Build", unused="Unused")
    rewound = RunRewound(
        run_id=story.run_id, at=1.0, of="run-before", job="build", leg=leg, step=2,
        done={"lint": "success", "build (3.10)": "failure", "unused": "skipped"}, files=1,
    )  # fmt: skip
    return [started, story.session(), rewound]


def test_what_it_goes_on_from_is_told_and_what_had_ended(story: Story) -> None:
    run = [
        story.job(leg="3.11", name="Build (3.11)", steps=2),
        story.step(2, "Test", leg="3.11"),
        story.step_done(2, "Test", leg="3.11"),
        story.job_done(leg="3.11", name="Build (3.11)"),
    ]
    text = shown([*going_on(story, "3.11"), *run, story.finished()])
    assert "going on from run-before, before step 2 of job build (3.11), with 1 changed file" in text
    rows = [line.split() for line in text.splitlines() if line.rstrip().endswith("before")]
    assert ["✓", "Lint", "before"] in rows
    assert ["✗", "build", "(3.10)", "before"] in rows
    assert ["⊘", "Unused", "skipped", "before"] in rows


def test_what_can_be_gone_on_with_is_the_next_thing_to_do(story: Story) -> None:
    summary = Summary()
    for event in story.failing():
        run = summary(event)
    assert "cloche run" in str(wording.next_step(run))
    summary(RunKept(run_id=story.run_id, at=9.0, job="build", leg=None, step=2, size=1, until=99.0))
    assert wording.next_step(run) == (
        f"mend it and go on from before step 2 of job build: cloche rewind {story.run_id}"
    )
