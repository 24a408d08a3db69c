"""A text stream that may go away, or lack our symbols."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO, TextIO

from cloche.errors import ClocheError
from cloche.report.text import SYMBOL_ERRORS

if TYPE_CHECKING:
    from io import TextIOBase


class Sink:
    """Writes whole pieces of text and flushes each.

    When the reader is gone (a closed pipe or terminal), the rest is dropped quietly: the run goes on.
    ClocheError when the stream fails otherwise, for example on a full disk; once, then too the rest is dropped.
    """

    def __init__(self, stream: TextIO | TextIOBase, encoding: str | None = None) -> None:
        self._stream = stream
        self._encoding = encoding or stream.encoding or "utf-8"
        self._binary: BinaryIO | None = getattr(stream, "buffer", None)
        self._terminal = stream.isatty()
        self._gone = False

    def write(self, text: str) -> None:
        """Write ``text`` now."""
        if self._gone:
            return
        try:
            self._write(text.encode(self._encoding, SYMBOL_ERRORS))
        except OSError as error:
            self._gone = True
            self._drop_what_is_buffered()
            if not isinstance(error, BrokenPipeError) and not self._terminal:
                raise ClocheError(
                    f"cannot write the output: {error.strerror}",
                    hint="make room, or send the output elsewhere",
                ) from error

    def _write(self, data: bytes) -> None:
        if self._binary is None:
            self._stream.write(data.decode(self._encoding))
        else:
            self._stream.flush()  # what others wrote as text comes first
            rest = memoryview(data)
            while rest:  # an unbuffered stream may take a part only
                rest = rest[self._binary.write(rest) :]
        self._stream.flush()

    def _drop_what_is_buffered(self) -> None:
        """Point the dead stream at nothing, or the interpreter complains when it flushes at its end.

        https://docs.python.org/3/library/signal.html#note-on-sigpipe
        """
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
