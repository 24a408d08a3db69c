"""Styled spans and Markdown as text with SGR sequences.

The console alone imports it: Rich is loaded for nobody else.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from cloche.report.markdown import from_html
from cloche.report.text import indented, visible, without_colour

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import TextIOBase
    from typing import TextIO

    from rich.console import RenderableType

    from cloche.report.tree import Span

_WIDEST_MARKDOWN = 100


def _squeezed(text: str) -> str:
    """Drop trailing blanks, and blank lines at the ends and next to one another."""
    lines = [line.rstrip() if without_colour(line).strip() else "" for line in text.split("\n")]
    return "\n".join(line for line, after in pairwise([*lines, ""]) if line or after).strip("\n")


class Painter:
    """Gives spans the terminal's colours, as many as it has and NO_COLOR allows."""

    def __init__(self, stream: TextIO | TextIOBase, env: Mapping[str, str]) -> None:
        self._console = Console(
            file=stream,  # type: ignore[arg-type] # only asked for its encoding: everything is captured
            force_terminal=True,
            markup=False,
            highlight=False,
            emoji=False,
            legacy_windows=False,
            _environ=env,
        )
        self.colour = self._console.color_system is not None and not self._console.no_color
        self._around: dict[str, tuple[str, str]] = {"": ("", "")}

    def __call__(self, spans: Iterable[Span]) -> str:
        """Turn the spans into text with SGR sequences."""
        painted = []
        for text, style in spans:
            if style not in self._around:
                before, _, after = self._rendered(Text("x", style), 1).partition("x")
                self._around[style] = before, after
            before, after = self._around[style]
            painted.append(f"{before}{text}{after}")
        return "".join(painted)

    def markdown(self, text: str, columns: int) -> str:
        """Render Markdown (and the HTML of ``@actions/core``), or leave it as it is where that fails."""
        from cloche.report.rendered import CalmMarkdown

        source = from_html(visible(text))
        try:
            rendered = self._rendered(
                CalmMarkdown(source, hyperlinks=False), min(columns - 2, _WIDEST_MARKDOWN)
            )
        except Exception:  # noqa: BLE001 - the text is a guest's, the renderer not made for hostile input
            rendered = source
        return indented(_squeezed(visible(rendered, colour=True)), "  ")

    def _rendered(self, thing: RenderableType, columns: int) -> str:
        with self._console.capture() as capture:
            self._console.print(thing, end="", width=max(columns, 1))
        return capture.get()
