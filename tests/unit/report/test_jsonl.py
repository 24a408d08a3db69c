from __future__ import annotations

import io
import json
import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import UsageError
from cloche.events import JobFinished, RunStarted, StepFinished, StepOutput
from cloche.report.jsonl import JsonLines, event_types, read_events

if TYPE_CHECKING:
    from tests.unit.report.conftest import Story


def output(text: str) -> StepOutput:
    return StepOutput(run_id="r", at=1.5, job="j", leg=None, step=1, text=text)


def written(*events: StepOutput | JobFinished | StepFinished | RunStarted) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    reporter = JsonLines(stream)
    for event in events:
        reporter(event)
    return raw.getvalue().decode("utf-8")


def test_an_event_is_a_compact_line_with_its_type_first() -> None:
    assert written(output("ü\n")) == (
        '{"type":"step.output","run_id":"r","at":1.5,"job":"j","leg":null,"step":1,"text":"ü\\n"}\n'
    )


def test_a_whole_run_comes_back_as_it_was(story: Story) -> None:
    events = story.failing()
    stream = io.StringIO()
    with JsonLines(stream) as reporter:
        for event in events:
            reporter(event)
    assert list(read_events(stream.getvalue().splitlines())) == events


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_a_single_line(text: str) -> None:
    lines = written(output(text)).splitlines()
    assert len(lines) == 1
    assert list(read_events(lines)) == [output(text)]


@given(st.text())
def test_the_line_is_valid_utf8_and_harmless_whatever_the_text(text: str) -> None:
    line = written(output(text))
    assert not any("\x7f" < character < "\xa0" or character == "\x1b" for character in line)
    assert json.loads(line)["text"] == re.sub("[\ud800-\udfff]", "\ufffd", text)


def test_a_lone_surrogate_is_replaced() -> None:
    assert json.loads(written(output("a\udc80b")))["text"] == "a\ufffdb"


def test_numbers_that_json_lacks_are_null(story: Story) -> None:
    done = story.step_done()
    fields = {name: value for name, value in done.to_json().items() if name != "type"}
    hostile = StepFinished(**{**fields, "usage": {"user_time": float("inf"), "max_rss": 5.0}})  # type: ignore[arg-type] # from a dictionary
    assert json.loads(written(hostile))["usage"] == {"user_time": None, "max_rss": 5.0}


def test_any_kind_of_mapping_is_an_object() -> None:
    jobs = MappingProxyType({"build": "Build"})
    event = RunStarted(run_id="r", at=0.0, workflow="CI", path="p", event="push", jobs=jobs)
    assert json.loads(written(event))["jobs"] == {"build": "Build"}


def test_every_event_is_on_its_way_before_the_next(story: Story) -> None:
    read, write = os.pipe()
    with os.fdopen(read, encoding="utf-8") as reader, os.fdopen(write, "w", encoding="utf-8") as stream:
        reporter = JsonLines(stream)
        reporter(story.started())
        assert json.loads(reader.readline())["type"] == "run.started"


def test_log_lines_stay_out_of_the_stream() -> None:
    out, err = io.StringIO(), io.StringIO()
    JsonLines(out, err).log("Allocated VM vm-1\n")
    assert (out.getvalue(), err.getvalue()) == ("", "Allocated VM vm-1\n")


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"type":"step.unknown"}',
        '{"type":"run.finished"}',
        '{"type":[]}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_told_with_its_place(line: str) -> None:
    with pytest.raises(UsageError, match=r"events.jsonl:2:1: not an event"):
        list(read_events(["", line], source="events.jsonl"))


def test_the_event_types_are_all_there_once() -> None:
    names = [kind.type for kind in event_types()]
    assert len(names) == len(set(names)) == 18
