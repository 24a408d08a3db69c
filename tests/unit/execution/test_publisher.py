"""Everything that goes out is masked."""

from __future__ import annotations

import logging

import pytest

from cloche.events import Annotation, Event, Notice, RunStarted, StepFinished
from cloche.execution.masking import Masker
from cloche.execution.publisher import MAX_MESSAGE, JobPublisher, Publisher, StepResult

SECRET = "hunter2"


@pytest.fixture
def seen() -> list[Event]:
    return []


@pytest.fixture
def publisher(seen: list[Event]) -> Publisher:
    return Publisher("run-1", Masker([SECRET]), [seen.append, seen.append], clock=lambda: 12.5)


def test_every_subscriber_gets_every_event(publisher: Publisher, seen: list[Event]) -> None:
    publisher.notice("warning", "careful")

    assert seen == [Notice(run_id="run-1", at=12.5, level="warning", message="careful")] * 2


def test_strings_are_masked_however_deep(publisher: Publisher, seen: list[Event]) -> None:
    result = StepResult("success", "success", 0, "boot", {f"key {SECRET}": f"<{SECRET}>", "b": "fine"})

    JobPublisher(publisher, "job", "leg", "name").step(1, "id").finished(f"a {SECRET}", "vm-1", result, 1.5)

    event = seen[0]
    assert isinstance(event, StepFinished)
    assert event.outputs == {"key ***": "<***>", "b": "fine"}
    assert (event.name, event.duration_ms) == ("a ***", 1500)


def test_identifiers_are_left_alone(seen: list[Event]) -> None:
    publisher = Publisher("run-1", Masker(["build", "success", "vm-1"]), [seen.append])
    publisher.publish(
        RunStarted(
            run_id="run-1", at=0, workflow="build it", path="p", event="push", jobs={"build": "build it"}
        )
    )
    JobPublisher(publisher, "build", None, "build").step(1, "build").finished(
        "build", "vm-1", StepResult("success", "success"), 0
    )

    start, end = seen
    assert isinstance(start, RunStarted)
    assert (start.workflow, start.jobs) == ("*** it", {"build": "*** it"})
    assert isinstance(end, StepFinished)
    assert (end.job, end.id, end.vm_id, end.conclusion, end.name) == (
        "build",
        "build",
        "vm-1",
        "success",
        "***",
    )


def test_a_message_is_masked_before_it_is_cut(publisher: Publisher, seen: list[Event]) -> None:
    step = JobPublisher(publisher, "job", None, "job").step(1, "")

    step.annotate("error", "x" * (MAX_MESSAGE - 3) + SECRET + "y")

    event = seen[0]
    assert isinstance(event, Annotation)
    assert event.message == "x" * (MAX_MESSAGE - 3) + "***"


def test_log_lines_are_masked(publisher: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    publisher.log(f"100% of {SECRET}")

    assert caplog.messages == ["100% of ***"]
