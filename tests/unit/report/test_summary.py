from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.report.summary import MAX_ANNOTATIONS, MAX_MARKDOWN, MAX_MESSAGE, MAX_TAIL, Summary, Tail
from cloche.report.wording import annotation_tally, evidence, next_step, rows

if TYPE_CHECKING:
    from cloche.events import Event
    from cloche.report.summary import RunState
    from tests.unit.report.conftest import Story


def told(*events: Event) -> RunState:
    summary = Summary()
    for event in events:
        summary(event)
    return next(iter(summary.runs.values()))


def test_a_tail_keeps_the_end_and_counts_everything() -> None:
    tail = Tail(limit=100)
    for number in range(1000):
        tail.add(f"line {number}\n")
    assert tail.last(2) == ["line 998", "line 999"]
    assert tail.lines == 1000
    assert len(tail.last(1000)) < 30


def test_a_tail_of_one_endless_line_stays_small() -> None:
    tail = Tail(limit=100)
    tail.add("x" * 10_000)
    assert tail.last(5) == ["x" * 100]


def test_a_line_cut_in_two_is_not_shown_as_a_whole_one() -> None:
    tail = Tail(limit=10)
    tail.add("a long line that is cut\nwhole\n")
    assert tail.last(5) == ["whole"]


def test_an_empty_tail_has_no_lines() -> None:
    assert Tail().last(5) == []


def test_nothing_a_guest_says_is_kept_without_bound(story: Story) -> None:
    flood = [story.annotation(f"{number}" + "m" * 10_000) for number in range(MAX_ANNOTATIONS + 5)]
    run = told(story.started(), story.job(), story.step(), *flood, *[story.summary("#" * 50_000)] * 3)
    step = run.jobs["build", None].steps[1]
    assert len(run.annotations) == MAX_ANNOTATIONS
    assert run.dropped_annotations == 5
    assert all(len(annotation.message) == MAX_MESSAGE for annotation, _ in run.annotations.values())
    assert len(step.markdown) == MAX_MARKDOWN
    for _ in range(100):
        step.tail.add("o" * 64_000 + "\n")
    assert sum(map(len, step.tail.last(10_000))) <= 2 * MAX_TAIL


def test_what_a_good_step_wrote_is_forgotten(story: Story) -> None:
    run = told(story.started(), story.job(), story.step(), story.output("text\n"), story.step_done())
    assert run.jobs["build", None].steps[1].tail.last(5) == []


def test_the_same_annotation_of_many_legs_is_one(story: Story) -> None:
    said = [
        story.annotation("unused", "warning", job="t", leg=leg, file="a.py", line=3)
        for leg in ("3.11", "3.12")
    ]
    run = told(story.started(), *said)
    ((_, count),) = run.annotations.values()
    assert count == 2
    assert annotation_tally(run) == "2 warnings"


def test_legs_stand_where_their_job_stood(story: Story) -> None:
    run = told(
        story.started(lint="Lint", test="Test", deploy="Deploy"),
        story.job("test", "Test (b)", "b"),
        story.job("test", "Test (a)", "a"),
        story.job("lint", "Lint"),
    )
    assert [job.name for job in run.ordered()] == ["Lint", "Test (b)", "Test (a)", "Deploy"]


def test_the_evidence_counts_the_steps_that_ran_in_the_guest(story: Story) -> None:
    assert evidence(told(*story.failing())) == "2 steps in VM vm-1, same boot id throughout, released"


def test_a_step_in_another_guest_is_said_aloud(story: Story) -> None:
    stranger = story.step_done(boot_id="another")
    run = told(story.started(), story.session(), story.job(), story.step(), stranger, story.finished())
    assert evidence(run) == "1 step in VM vm-1, BUT 1 of them saw another boot id, not released"


def test_without_a_guest_there_is_no_evidence(story: Story) -> None:
    assert evidence(told(story.started(), story.finished("failure"))) is None


@pytest.mark.parametrize(
    ("exit_code", "hint"),
    [
        (1, "run this job again: cloche run .github/workflows/ci.yml -j build"),
        (126, "Compile: the program is there but may not be run"),
        (127, "Compile: a command was not found"),
        (137, "Compile: the step was killed, most often for want of memory: try --memory 4G"),
    ],
)
def test_a_failure_says_what_to_do_next(story: Story, exit_code: int, hint: str) -> None:
    failed = story.step_done(conclusion="failure", exit_code=exit_code)
    said = next_step(told(story.started(), story.job(), story.step(), failed, story.finished("failure")))
    assert said is not None
    assert said.startswith(hint)


def test_a_job_that_failed_without_a_step_can_be_run_again(story: Story) -> None:
    lost = story.job_done(conclusion="failure")
    hint = next_step(told(story.started(), story.job(), lost, story.finished("failure")))
    assert hint == "run this job again: cloche run .github/workflows/ci.yml -j build"


def test_success_needs_no_advice(story: Story) -> None:
    assert next_step(told(story.started(), story.finished())) is None


def test_a_long_table_leaves_out_the_steps_of_jobs_that_did_well(story: Story) -> None:
    events: list[Event] = [story.started(t="T")]
    for number in range(10):
        leg = str(number)
        conclusion = "failure" if number == 7 else "success"
        events.append(story.job("t", f"T{leg}", leg))
        events += [story.step_done(step, f"S{step}", "t", leg) for step in range(1, 6)]
        events.append(story.job_done("t", f"T{leg}", leg, conclusion))  # type: ignore[arg-type] # one of two
    names = [row.name for row in rows(told(*events))]
    assert "T3" in names
    assert names[names.index("T7") + 1 :][:5] == ["S1", "S2", "S3", "S4", "S5"]
    assert names.count("S1") == 1


def test_events_of_an_unknown_run_do_no_harm(story: Story) -> None:
    run = told(story.output("text\n"), story.step_done())
    assert run.workflow == "r1"
