"""A verification on a terminal: a table that fills while it runs, and what came of it at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloche.report.text import counted, one_line
from cloche.units import format_duration

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, TextIO

    from cloche.verify.report import Report
    from cloche.verify.report import Table as Rows
    from cloche.verify.stage import Progress

_STYLES = {"passed": "green", "holds": "green", "good": "green"}
_BAD = {"failed", "FAILED", "FAILS", "BAD"}
_PLAIN_WIDTH = 120


class VerifyConsole:
    """Shows how a verification goes on ``stream``, live where that is a terminal, else a line for each scenario.

    A context manager: leaving it gives the terminal back.
    """

    def __init__(self, stream: TextIO) -> None:
        width = None if stream.isatty() else _PLAIN_WIDTH
        self._console = Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
        self._latest: dict[str, Progress] = {}
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False) if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def tell(self, progress: Progress) -> None:
        """Show how far a scenario is."""
        self._latest[progress.scenario] = progress
        if self._live:
            self._live.update(self._progress(), refresh=True)
        elif progress.state != "running":
            self._console.print(f"{progress.scenario} {progress.state}: {progress.title}", soft_wrap=True)

    def _progress(self) -> Table:
        table = Table(box=None, show_header=False)
        for progress in self._latest.values():
            state = Text(progress.state, style=_style(progress.state))
            steps = f"{progress.steps} of {progress.planned} steps"
            table.add_row(progress.scenario, state, progress.title, steps, counted(progress.vms, "VM"))
        return table

    def note(self, text: str) -> None:
        """Show a line about what is going on."""
        self._console.print(f"cloche: {text}", style="dim", soft_wrap=True)

    def show(self, report: Report) -> None:
        """Show the outcome: the scenarios, the requirements, and loudly what does not hold."""
        for rows, hidden in ((report.scenarios(), "what"), (report.matrix(), "")):
            self._console.print(_table(rows, hidden))
        for note in report.weaker:
            self._console.print(note, style="yellow")
        style = "bold green" if report.passed else "bold red"
        self._console.print(f"{report.verdict}, in {format_duration(report.seconds)}", style=style)
        for check in report.checks:
            if not check.passed:
                line = f"{check.requirement} fails in {check.scenario}: {check.claim}: {check.measured}"
                self._console.print(one_line(line, 400), style="red", soft_wrap=True)


def _table(rows: Rows, hidden: str) -> Table:
    """A table without the column ``hidden``: what it says has just been shown."""
    table = Table(title=rows.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    shown = [index for index, name in enumerate(rows.columns) if name != hidden]
    for index in shown:
        table.add_column(rows.columns[index], overflow="fold")
    for row in rows.rows:
        table.add_row(*(Text(one_line(row[index], 400), style=_style(row[index])) for index in shown))
    return table


def _style(word: str) -> str:
    return "bold red" if word in _BAD else _STYLES.get(word, "")
