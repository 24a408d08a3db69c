"""A step's bytes, made into text of whole lines.

Lines end as in actions/runner, which reads with .NET: at a line feed, a carriage return, or both. Bytes that
are no UTF-8 become U+FFFD. A line too long to be kept is passed on in pieces; then a secret that a cut goes
through is masked on both sides of it, which nobody further down could do.
"""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, NamedTuple

from cloche.execution.masking import Masker, Span, cover, unite

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE = 64 * 1024
"""Characters of a line that are kept back for its end, unless it looks like a command."""

MAX_COMMAND_LINE = 1024 * 1024
"""Characters of a line that starts like a command: an output may be 1 MiB long."""


class Text(NamedTuple):
    """Text that ends with a newline. ``whole``: its lines are complete, so they may be commands."""

    text: str
    whole: bool


class LineStream:
    """Takes chunks of bytes cut anywhere, gives back lines. One per step."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._line: list[str] = []
        self._length = 0
        self._limit = MAX_LINE
        self._pieces = False
        self._covered = 0

    def feed(self, chunk: bytes) -> Iterator[Text]:
        """Yield what ``chunk`` completes. Lazy: act on each text before asking for the next one."""
        yield from self._take(self._decoder.decode(chunk))

    def close(self) -> Iterator[Text]:
        """Yield what is left at the end; a last line without an end gets one."""
        yield from self._take(self._decoder.decode(b"", final=True))
        if self._line:
            yield from self._take("\n")

    def _take(self, text: str) -> Iterator[Text]:
        if self._pieces and (end := text.find("\n") + 1):
            self._keep(text[: end - 1])
            if self._length:
                yield self._piece(hold=0)
            self._pieces, self._covered, text = False, 0, text[end:]
        if end := text.rfind("\n") + 1:
            self._keep(text[:end])
            yield Text(self._drain(), whole=True)
            text = text[end:]
        if text:
            self._keep(text)
            while self._too_long():
                self._pieces = True
                yield self._piece(hold=max(self._masker.longest - 1, 0))

    def _keep(self, text: str) -> None:
        self._line.append(text)
        self._length += len(text)

    def _drain(self) -> str:
        text = "".join(self._line)
        self._line, self._length, self._limit = [], 0, MAX_LINE
        return text

    def _too_long(self) -> bool:
        if self._length <= max(self._limit, 2 * self._masker.longest):
            return False
        if not self._pieces and self._limit == MAX_LINE:
            text = self._drain()
            self._keep(text)
            self._limit = MAX_COMMAND_LINE if text.lstrip().startswith(("::", "##[")) else MAX_LINE
            return self._length > max(self._limit, 2 * self._masker.longest)
        return True

    def _piece(self, hold: int) -> Text:
        """All but the last ``hold`` characters of the line so far, masked, as a line of its own.

        Every secret that begins before the cut ends within what is at hand; what of it lies behind the cut is
        remembered as covered.
        """
        text = self._drain()
        cut = len(text) - hold
        spans = self._masker.spans(text)
        if self._covered:
            spans = unite([*spans, (0, self._covered)])
        shown: list[Span] = [(start, min(end, cut)) for start, end in spans if start < cut]
        self._covered = max((end - cut for start, end in spans if start < cut < end), default=0)
        if hold:
            self._keep(text[cut:])
        return Text(cover(text[:cut], shown) + "\n", whole=False)
