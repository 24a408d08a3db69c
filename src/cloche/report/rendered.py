"""Rich's Markdown, calmer: headings stay left and unboxed, code is not highlighted.

Highlighting would run a lexer of the guest's choice over the guest's text, and some take very long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.markdown import CodeBlock, Heading, Markdown
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import MarkdownElement


class _CalmHeading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        text = self.text
        text.justify = "left"
        text.stylize("bold underline" if self.tag in {"h1", "h2"} else "bold")
        yield text


class _CalmCode(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        yield Padding(Text(str(self.text).rstrip(), "dim", overflow="fold"), (0, 0, 0, 2))


class CalmMarkdown(Markdown):
    """A step summary's Markdown."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _CalmHeading,
        "fence": _CalmCode,
        "code_block": _CalmCode,
    }
