"""A run in as few lines as can be: what went wrong, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.events import Notice, RunFinished
from cloche.report.closing import annotation_lines, failures
from cloche.report.sink import Sink
from cloche.report.summary import Summary
from cloche.report.text import indented, visible
from cloche.report.wording import ending

if TYPE_CHECKING:
    from io import TextIOBase
    from types import TracebackType
    from typing import Self, TextIO

    from cloche.events import Event
    from cloche.report.summary import RunState


class Quiet:
    """Writes a run's annotations, failed steps and verdict to ``stdout`` when it ends, and nothing before.

    Notices of the level error come as they happen.
    """

    def __init__(self, stdout: TextIO | TextIOBase, stderr: TextIO | TextIOBase) -> None:
        self._out = Sink(stdout)
        self._log = Sink(stderr)
        self._summary = Summary()

    def __call__(self, event: Event, /) -> None:
        """Take one event."""
        run = self._summary(event)
        match event:
            case Notice(level="error"):
                self._out.write(indented(f"error: {visible(event.message)}", ""))
            case RunFinished():
                self._out.write(_result(run))

    def log(self, line: str) -> None:
        """Write a line of Cloche's own log."""
        self._log.write(line.rstrip("\n") + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say of runs that were cut short what is known of them."""
        self._out.write("".join(_result(run) for run in self._summary.active()))


def _result(run: RunState) -> str:
    return "".join([annotation_lines(run), *failures(run), f"{ending(run)}\n"])
