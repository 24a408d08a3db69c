"""Showing nothing of a run while somebody has its terminal, and all of it afterwards."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cloche.events import StepOutput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from cloche.events import Event
    from cloche.report import Reporter

_MOST_TEXT = 4 * 1024 * 1024
"""Characters of steps' output that wait behind the curtain; what comes then is left out, and that is told."""


@runtime_checkable
class _Moving(Protocol):
    """A reporter that writes without being told anything: it has to be stopped."""

    def rest(self) -> None:
        """Leave the terminal alone."""

    def wake(self) -> None:
        """Have it again."""


class Curtain:
    """A reporter in front of another one."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._down = False
        self._held: deque[Event | str] = deque()
        self._text = 0
        self._left_out = 0

    def __enter__(self) -> Self:
        self._reporter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reporter.__exit__(kind, error, trace)

    def __call__(self, event: Event, /) -> None:
        """Show an event, or keep it for later."""
        if not self._down:
            self._reporter(event)
            return
        if isinstance(event, StepOutput):
            self._text += len(event.text)
            if self._text > _MOST_TEXT:
                self._left_out += 1
                return
        self._held.append(event)

    def log(self, line: str) -> None:
        """Write a line of the log, or keep it for later."""
        if self._down:
            self._held.append(line)
        else:
            self._reporter.log(line)

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Show nothing within the block; then all that came meanwhile."""
        if isinstance(self._reporter, _Moving):
            self._reporter.rest()
        self._down = True
        try:
            yield
        finally:
            self._down = False
            if isinstance(self._reporter, _Moving):
                self._reporter.wake()
            self._show_all()

    def _show_all(self) -> None:
        while self._held:
            held = self._held.popleft()
            if isinstance(held, str):
                self._reporter.log(held)
            else:
                self._reporter(held)
        if self._left_out:
            self._reporter.log(f"cloche: {self._left_out} pieces of steps' output were left out meanwhile")
        self._text = self._left_out = 0
