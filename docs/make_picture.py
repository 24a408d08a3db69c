"""Draw docs/run.svg, the README's picture, from the events in docs/example-events.jsonl.

Run it when the console changed: ``PYTHONPATH=src python docs/make_picture.py [EVENTS [PICTURE]]``. Any run's
events will do: ``cloche run --output jsonl > events.jsonl``.
"""

# ruff: noqa: INP001 - a script, no package

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from cloche.report.console import ConsoleReporter
from cloche.report.jsonl import read_events

HERE = Path(__file__).parent
DEFAULTS = HERE / "example-events.jsonl", HERE / "run.svg"
COLUMNS = 104
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


class Terminal(io.StringIO):
    """A terminal that only remembers."""

    def isatty(self) -> bool:
        """Say yes, or nobody would draw on it."""
        return True


def transcript(events: Path) -> str:
    """Return what stands on a terminal after the run, with its colours."""
    terminal = Terminal()
    size = os.terminal_size((COLUMNS, 60))
    env = {"TERM": "xterm-256color"}
    with (
        events.open(encoding="utf-8") as lines,
        ConsoleReporter(
            terminal, terminal, env, animate=False, clock=lambda: 0.0, size=lambda: size
        ) as reporter,
    ):
        for event in read_events(lines, source=str(events)):
            reporter(event)
    return re.sub(r"\x1b\[\?\d+[hl]", "", terminal.getvalue())


def main() -> None:
    """Draw the picture."""
    events, picture = (*map(Path, sys.argv[1:3]), *DEFAULTS[len(sys.argv[1:3]) :])
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text("$ cloche run", "bold"))
    console.print(Text.from_ansi(transcript(events)))
    # No fonts from elsewhere: the picture is the same without a network.
    page = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    page = page.replace("Fira Code, monospace", FONTS).replace("<svg ", '<svg xml:space="preserve" ', 1)
    console.save_svg(str(picture), title="cloche run", code_format=page, unique_id="cloche")


if __name__ == "__main__":
    main()
