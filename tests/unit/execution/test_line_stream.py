"""Chunks of bytes become whole lines, and a secret is never cut in two; see cloche.execution.line_stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.execution.line_stream import MAX_COMMAND_LINE, MAX_LINE, LineStream, Text
from cloche.execution.masking import Masker

if TYPE_CHECKING:
    from collections.abc import Iterable


def read(chunks: Iterable[bytes], *secrets: str) -> list[Text]:
    stream = LineStream(Masker(secrets))
    texts = [text for chunk in chunks for text in stream.feed(chunk)]
    return [*texts, *stream.close()]


def test_lines_are_passed_on_when_they_are_whole() -> None:
    assert read([b"one\ntw", b"o\nthree"]) == [
        Text("one\n", whole=True),
        Text("two\n", whole=True),
        Text("three\n", whole=True),
    ]


def test_many_lines_of_one_chunk_stay_together() -> None:
    assert read([b"one\ntwo\nthree\n"]) == [Text("one\ntwo\nthree\n", whole=True)]


def test_nothing_gives_nothing() -> None:
    assert read([]) == []
    assert read([b"", b""]) == []


@pytest.mark.parametrize("data", [b"one\r\ntwo\r\n", b"one\rtwo\n", b"one\r\ntwo\r"])
def test_carriage_returns_end_lines(data: bytes) -> None:
    chunks = [data[i : i + 1] for i in range(len(data))]

    assert "".join(text for text, _ in read(chunks)) == "one\ntwo\n"


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert read([b"caf\xc3", b"\xa9 \xff\xfe!\n", b"end\xe2\x82"]) == [
        Text("café \ufffd\ufffd!\n", whole=True),
        Text("end\ufffd\n", whole=True),
    ]


def test_a_line_too_long_to_keep_comes_in_pieces() -> None:
    texts = read([b"x" * 10_000] * 20 + [b"\nshort\n"])

    assert [text.whole for text in texts] == [False, False, False, True]
    assert "".join(text.text for text in texts).replace("\n", "") == "x" * 200_000 + "short"
    assert all(len(text.text) <= MAX_LINE + 10_001 for text in texts)


def test_a_long_line_that_looks_like_a_command_is_kept_whole() -> None:
    line = b"::set-output name=big::" + b"x" * 500_000 + b"\n"

    assert read([line[:9], line[9:70_000], line[70_000:]]) == [Text(line.decode(), whole=True)]


def test_a_command_without_end_is_bounded() -> None:
    texts = read([b"::debug::" + b"x" * MAX_COMMAND_LINE, b"y" * MAX_COMMAND_LINE])

    assert not any(text.whole for text in texts)
    assert sum(len(text.text) for text in texts) > 2 * MAX_COMMAND_LINE


def test_a_line_that_is_one_long_run_of_secrets_shows_none() -> None:
    texts = read([b"ab" * 50_000 for _ in range(4)], "abab")

    assert {text.text for text in texts} == {"***\n"}


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    secret = draw(st.text("abcé", min_size=1, max_size=30))
    noise = st.text("xyz\n", max_size=30) | st.integers(1, 3).map(lambda n: "x" * (MAX_LINE * n // 2))
    parts = draw(st.lists(noise | st.just(secret), max_size=8))
    data = "".join(parts).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return secret, [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(cut_streams())
def test_a_secret_cut_anywhere_never_shows(case: tuple[str, list[bytes]]) -> None:
    secret, chunks = case
    masker = Masker([secret])
    stream = LineStream(masker)

    texts = [text for chunk in chunks for text in stream.feed(chunk)] + list(stream.close())

    shown = "".join(masker.mask(text.text) if text.whole else text.text for text in texts)
    assert all(text.text.endswith("\n") for text in texts)
    assert secret not in shown
    assert secret not in shown.replace("\n", "") or len(secret) == 1 or "\n" in b"".join(chunks).decode()


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_where_chunks_are_cut_does_not_matter(data: bytes, places: list[int]) -> None:
    cuts = sorted({min(place, len(data)) for place in places})
    chunks = [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    assert "".join(text for text, _ in read(chunks)) == "".join(text for text, _ in read([data]))
