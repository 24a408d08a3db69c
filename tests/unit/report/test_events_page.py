"""docs/events.md against events.py: a program written after the page must work."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.report.jsonl import event_types, read_events

if TYPE_CHECKING:
    from cloche.events import Event

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text(encoding="utf-8")
TYPES = {
    "str": "string",
    "float": "number",
    "int": "integer",
    "str | None": "string or null",
    "int | None": "integer or null",
    "Mapping[str, str]": "object of strings",
    "Mapping[str, Conclusion]": "object of conclusions",
    "Mapping[str, float]": "object of numbers",
    "Conclusion": "conclusion",
    "Quota": "quota",
    "AnnotationLevel": "level",
}


def section(name: str) -> str:
    found = re.search(rf"^## `{re.escape(name)}`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"docs/events.md says nothing of {name}"
    return found[1]


def fields(kind: type[Event]) -> list[tuple[str, str]]:
    return [(field.name, TYPES[str(field.type)]) for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("kind", event_types(), ids=lambda kind: kind.type)
def test_the_page_lists_an_event_as_it_is(kind: type[Event]) -> None:
    listed = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]*\|$", section(kind.type), re.MULTILINE)
    assert listed == fields(kind)


@pytest.mark.parametrize("kind", event_types(), ids=lambda kind: kind.type)
def test_the_example_is_that_event(kind: type[Event]) -> None:
    example = re.findall(r"^```json\n(.*)\n```$", section(kind.type), re.MULTILINE)[0]
    (event,) = read_events([example])
    assert type(event) is kind
    assert list(json.loads(example)) == ["type", *(name for name, _ in fields(kind))]


def test_the_page_lists_nothing_else() -> None:
    listed = re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(kind.type for kind in event_types())
