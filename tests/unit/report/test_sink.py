from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ClocheError
from cloche.report.sink import Sink

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import ReadableBuffer


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, _data: ReadableBuffer) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class OneByteAtATime(io.RawIOBase):
    def __init__(self) -> None:
        super().__init__()
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        self.taken += bytes(data)[:1]
        return 1


def test_a_closed_pipe_ends_the_output_quietly_and_for_good() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as stream:
        sink = Sink(stream)
        sink.write("nobody hears this\n")
        sink.write("nor this\n")


def test_a_full_disk_is_told() -> None:
    sink = Sink(io.TextIOWrapper(FullDisk(), encoding="utf-8"))  # type: ignore[type-var] # raw on purpose
    with pytest.raises(ClocheError, match="cannot write the output: No space left on device"):
        sink.write("text\n")
    sink.write("nobody is told again\n")


def test_a_stream_that_takes_little_at_a_time_gets_everything() -> None:
    raw = OneByteAtATime()
    Sink(io.TextIOWrapper(raw, encoding="utf-8")).write("whole ✓\n")  # type: ignore[type-var] # raw on purpose
    assert raw.taken == "whole ✓\n".encode()


def test_an_encoding_without_our_symbols_gets_others(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w", encoding="ascii") as stream:
        Sink(stream).write("✓ Build · 1.0 s\n")
    assert path.read_text() == "+ Build - 1.0 s\n"


def test_lone_surrogates_do_not_stop_the_output() -> None:
    stream = io.StringIO()
    Sink(stream).write("a\ud800b")
    assert stream.getvalue() == "a?b"


def test_what_others_wrote_before_stays_before(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("first ")
    Sink(sys.stdout).write("second\n")
    assert capfd.readouterr().out == "first second\n"
