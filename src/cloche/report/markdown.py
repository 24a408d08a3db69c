"""Step summaries: the HTML that ``@actions/core`` writes into them, as Markdown.

``core.summary`` (actions/toolkit, packages/core/src/summary.ts) emits tables, lists, headings and details as
HTML; terminals show Markdown. Only tags are turned; unknown ones vanish, their text stays.
"""

from __future__ import annotations

import re

_CODE_OR_TAG = re.compile(
    r"^[ ]{0,3}(?P<fence>`{3,}+|~{3,}+)[^\n]*+\n.*?(?:^[ ]{0,3}(?P=fence)|\Z)"
    r"|`[^`\n]++`"
    r"|<(?P<closing>/?)(?P<tag>[a-zA-Z][a-zA-Z0-9]*+)(?P<attributes>(?:\s[^<>]*+)?)/?>",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"""\b(?:href|alt)\s*=\s*["']?([^"'\s>]+)""")

_OPEN = {
    "br": "\n",
    "hr": "\n\n---\n\n",
    "p": "\n\n",
    "div": "\n\n",
    "details": "\n\n",
    "summary": "**",
    "b": "**",
    "strong": "**",
    "em": "*",
    "i": "*",
    "code": "`",
    "li": "\n- ",
    "ul": "\n",
    "ol": "\n",
    "blockquote": "\n\n> ",
    "table": "\n\n",
    **{f"h{level}": f"\n\n{'#' * level} " for level in range(1, 7)},
}
_CLOSE = {
    "p": "\n\n",
    "div": "\n\n",
    "details": "\n\n",
    "summary": "**\n\n",
    "b": "**",
    "strong": "**",
    "em": "*",
    "i": "*",
    "code": "`",
    "ul": "\n\n",
    "ol": "\n\n",
    "blockquote": "\n\n",
    "table": "\n\n",
    **{f"h{level}": "\n\n" for level in range(1, 7)},
}


def from_html(text: str) -> str:
    """Turn the HTML tags in ``text`` into Markdown, code left alone, in linear time."""
    if "<" not in text:
        return text
    first, *rest = text.split("<!--")
    text = first + "".join(part.partition("-->")[2] for part in rest)
    return re.sub(r"\n{3,}+", "\n\n", _Turner().turn(text)).strip("\n") + "\n"


class _Turner:
    """Writes Markdown, remembering the table, link or preformatted block it is in."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._cells = 0
        self._header_due = False
        self._preformatted = False
        self._targets: list[str] = []

    def turn(self, text: str) -> str:
        """Turn the whole text."""
        end = 0
        for match in _CODE_OR_TAG.finditer(text):
            self._out.append(text[end : match.start()])
            if match["tag"]:
                self._tag(match["tag"].lower(), match["attributes"], closing=bool(match["closing"]))
            else:
                self._out.append(match[0])
            end = match.end()
        return "".join([*self._out, text[end:]])

    def _tag(self, name: str, attributes: str, *, closing: bool) -> None:
        if name in {"tr", "td", "th", "table"}:
            self._table(name, closing=closing)
        elif name == "pre":
            self._preformatted = not closing
            self._out.append("\n```\n")
        elif name in {"a", "img"}:
            self._link(name, attributes, closing=closing)
        elif not (name == "code" and self._preformatted):
            self._out.append((_CLOSE if closing else _OPEN).get(name, ""))

    def _table(self, name: str, *, closing: bool) -> None:
        self._trim()
        if name == "table":
            self._header_due, self._cells = not closing, 0
            self._out.append("\n\n")
        elif name == "tr" and not closing:
            self._out.append("\n|")
            self._cells = 0
        elif name == "tr" and self._header_due:
            self._out.append("\n|" + "---|" * self._cells)
            self._header_due = False
        elif name != "tr":
            self._cells += not closing
            self._out.append(" |" if closing else " ")

    def _trim(self) -> None:
        """Drop white space between the tags of a table."""
        if self._out:
            self._out[-1] = self._out[-1].rstrip()

    def _link(self, name: str, attributes: str, *, closing: bool) -> None:
        found = _LINK.search(attributes)
        if name == "img":
            self._out.append(found[1] if found else "")
        elif not closing:
            self._targets.append(found[1] if found else "")
        elif self._targets and (target := self._targets.pop()):
            self._out.append(f" ({target})")
