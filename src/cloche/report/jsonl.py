"""The event stream as JSON lines, out and in again; docs/events.md is the reference."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloche import events
from cloche.errors import Position, UsageError
from cloche.report.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import TextIOBase
    from types import TracebackType
    from typing import Self, TextIO

    from cloche.events import Event

# Allowed raw in JSON, yet a terminal obeys it (C1), readers split at it (U+0085, U+2028) or UTF-8 lacks it.
_ODD = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_FIELDS: dict[type[Event], tuple[str, ...]] = {}


class JsonLines:
    """One event a line on ``stream``, flushed per event, always UTF-8; nothing else is written there.

    Lone surrogates become U+FFFD, numbers that JSON lacks become null. ``log`` lines go to ``stderr``.
    """

    def __init__(self, stream: TextIO | TextIOBase, stderr: TextIO | TextIOBase | None = None) -> None:
        self._sink = Sink(stream, encoding="utf-8")
        self._log = Sink(stderr) if stderr else None

    def __call__(self, event: Event, /) -> None:
        """Write one event."""
        self._sink.write(_encode(_data(event)) + "\n")

    def log(self, line: str) -> None:
        """Write a line of Cloche's own log, never between the events."""
        if self._log:
            self._log.write(line.rstrip("\n") + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _data(event: Event) -> dict[str, object]:
    """Say what ``event.to_json`` says, without its deep copy: a flood has many events."""
    kind = type(event)
    if kind not in _FIELDS:
        _FIELDS[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return {"type": event.type} | {name: getattr(event, name) for name in _FIELDS[kind]}


def _encode(data: Mapping[str, object]) -> str:
    try:
        line = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict)
    except ValueError:
        return _encode({key: _finite(value) for key, value in data.items()})
    return line if line.isascii() else _ODD.sub(_harmless, line)


def _harmless(match: re.Match[str]) -> str:
    character = match[0]
    return "\ufffd" if "\ud800" <= character <= "\udfff" else f"\\u{ord(character):04x}"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_events(lines: Iterable[str], *, source: str = "<events>") -> Iterator[Event]:
    """Read what ``JsonLines`` wrote; empty lines are passed over.

    UsageError, with the line's position in ``source``, for a line that is no event.
    """
    kinds = {kind.type: kind for kind in event_types()}
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _decode(line, kinds, Position(source, number, 1))


def _decode(line: str, kinds: Mapping[str, type[Event]], position: Position) -> Event:
    try:
        data: dict[str, Any] = json.loads(line)
        return kinds[data.pop("type")](**data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            "not an event of this version of Cloche",
            hint="docs/events.md lists every event and its fields",
            position=position,
        ) from error


def event_types() -> tuple[type[Event], ...]:
    """Give every concrete event, in the order events.py declares them."""
    return tuple(
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event) and hasattr(kind, "type")
    )
