"""A step's output within its bounds; the rules of commands are tested beside them."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from cloche.events import Annotation, StepOutput
from cloche.execution import step_output
from cloche.execution.line_commands import Assign, CommandReader
from cloche.execution.masking import Masker
from cloche.execution.publisher import JobPublisher, Publisher
from cloche.execution.step_output import StepOutputReader

if TYPE_CHECKING:
    from cloche.events import Event

WORKSPACE = "/home/runner/work/hello/hello"


class Listener:
    """Reads a step's output and keeps what is told of it."""

    def __init__(self, *secrets: str) -> None:
        self.events: list[Event] = []
        masker = Masker(secrets)
        publisher = JobPublisher(Publisher("run-1", masker, [self.events.append]), "job", None, "job")
        self.reader = StepOutputReader(publisher.step(1, ""), masker, WORKSPACE, CommandReader())

    def feed(self, *chunks: bytes) -> Listener:
        for chunk in chunks:
            self.reader.feed(chunk)
        self.reader.close()
        return self

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, StepOutput))

    @property
    def annotations(self) -> list[Annotation]:
        return [event for event in self.events if isinstance(event, Annotation)]


def test_text_and_commands_keep_their_order() -> None:
    listener = Listener().feed(b"one\n::warn", b"ing::careful\ntwo")

    assert [event.type for event in listener.events] == ["step.output", "step.annotation", "step.output"]
    assert listener.text == "one\ntwo\n"


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        (f"{WORKSPACE}/src/a.py", "src/a.py"),
        (f"{WORKSPACE}/src/../a.py", "a.py"),
        ("src/a.py", "src/a.py"),
        ("/etc/passwd", "/etc/passwd"),
        ("", None),
    ],
)
def test_files_are_named_as_in_the_repository(file: str, shown: str | None) -> None:
    (annotation,) = Listener().feed(f"::error file={file}::m\n".encode()).annotations

    assert annotation.file == shown


def test_a_command_longer_than_a_line_may_be_is_text() -> None:
    listener = Listener().feed(b"::set-output name=x::", *[b"y" * 60_000] * 50, b"\n")

    assert listener.reader.assigned == []
    assert len(listener.text) > 3_000_000


def test_outputs_as_long_as_githubs_fit() -> None:
    listener = Listener().feed(b"::set-output name=x::" + b"y" * 1_000_000 + b"\n")

    assert listener.reader.assigned == [Assign("output", "x", "y" * 1_000_000)]


def test_what_a_step_can_assign_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_output, "MAX_ASSIGNED", 100)
    listener = Listener().feed(
        b"".join(b"::save-state name=s%d::0123456789\n" % number for number in range(50))
    )

    assert len(listener.reader.assigned) < 10
    assert listener.reader.failed
    assert [a.message for a in listener.annotations if a.level == "error"] == [
        "Unable to process command that sets 's8' successfully.",
        "A step can assign 0 MiB in its output, no more.",
    ]


def test_debug_lines_beyond_the_bound_are_dropped() -> None:
    listener = Listener().feed(b"::debug::x\n" * 500)

    assert len(listener.annotations) == step_output.MAX_ANNOTATIONS
    assert listener.text == ""


def test_a_flood_takes_no_memory() -> None:
    listener = Listener("hunter2")
    listener.events.clear()
    chunk = b"some line of a build that goes on and on, std::string and all\n" * 1000
    tracemalloc.start()
    try:
        for _ in range(300):
            listener.reader.feed(chunk)
            listener.events.clear()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2_000_000
