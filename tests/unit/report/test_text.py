from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.report.text import (
    SYMBOL_ERRORS,
    cells,
    counted,
    duration,
    elapsed,
    elided,
    fitted,
    indented,
    one_line,
    visible,
    without_colour,
    wrapped,
)

SGR = re.compile(r"\x1b\[[0-9;:]*m")
HOSTILE_PIECES = st.sampled_from(
    rb"\x1b \x1b[ \x1b] \x1bP \x9b \x9d [2J 31m 0;title \x07 \x1b\\ \x9c 8;;http://e 52;c;aGk= ?1049h 1;1H m"
    rb" text \r \n \t \x08 \x00 \x7f \u202e \xfc \ud800".decode("unicode_escape").split(" ")
)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]2;title\x1b\\after", "after"),
        ("\x1b]52;c;aGVsbG8=\x07", ""),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9d0;title\x9cafter", "after"),
        ("\x1bPq#0~\x1b\\after", "after"),
        ("\x1b[2J\x1b[1;1Hfake prompt", "fake prompt"),
        ("\x9b2Jtext", "text"),
        ("\x1b[?1049h\x1b[?25l", ""),
        ("\x1b7saved\x1b8", "saved"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lines", "lines"),
        ("\x1b]0;never ends\nnext", "0;never ends\nnext"),
        ("\x1b\x1b[2Jx", "x"),
        ("bell\x07 back\x08space nul\x00 del\x7f", "bell backspace nul del"),
        ("invoice\u202etxt.exe", "invoicetxt.exe"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("tabs\tand\nlines\n", "tabs\tand\nlines\n"),
    ],
)
def test_only_text_passes(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


def test_colours_pass_where_asked_and_end_with_their_line() -> None:
    assert visible("\x1b[31mred\nplain", colour=True) == "\x1b[31mred\x1b[0m\nplain"
    assert visible("\x1b[38;2;1;2;3mtrue\x1b[2Kcolour", colour=True) == "\x1b[38;2;1;2;3mtruecolour\x1b[0m"


def test_a_line_that_overwrites_itself_shows_its_last_state() -> None:
    assert visible(" 10%\r 50%\r100%\r\ndone\r\n") == "100%\ndone\n"


@given(st.lists(HOSTILE_PIECES | st.text(max_size=5)).map("".join))
def test_no_sequence_but_sgr_passes_whatever_comes(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", visible(text))
    assert "\x1b" not in SGR.sub("", visible(text, colour=True))
    assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]", visible(text, colour=True))


@given(st.text(st.characters(exclude_categories=["C"]) | st.sampled_from("\n\t")))
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(st.lists(HOSTILE_PIECES | st.text(max_size=5)).map("".join))
def test_colour_changes_nothing_but_colour(text: str) -> None:
    assert without_colour(visible(text, colour=True)) == visible(text)


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (0, "0 ms"),
        (87.4, "87 ms"),
        (999, "999 ms"),
        (999.9, "1.0 s"),
        (8123, "8.1 s"),
        (59_949, "59.9 s"),
        (59_960, "1 m 00 s"),
        (125_000, "2 m 05 s"),
        (3_599_600, "1 h 00 m"),
        (3_725_000, "1 h 02 m"),
        (-5, "0 ms"),
    ],
)
def test_durations_are_said_as_people_say_them(milliseconds: float, said: str) -> None:
    assert duration(milliseconds) == said


def test_what_still_runs_is_timed_in_calm_whole_seconds() -> None:
    assert [elapsed(0.9), elapsed(59.9), elapsed(61), elapsed(-1)] == ["0 s", "59 s", "1 m 01 s", "0 s"]


def test_names_become_one_bounded_line() -> None:
    assert one_line("a\r\nb\t\x1b[2Jc\u2028d ") == "a b c d"
    assert one_line("x" * 500) == "x" * 199 + "…"


@given(st.text(), st.integers(0, 60))
def test_cut_lines_fit(text: str, width: int) -> None:
    line = one_line(text)
    assert cells(fitted(line, width)) <= width
    assert cells(elided(line, max(width, 3))) <= max(width, 3)


def test_wide_characters_take_two_columns() -> None:
    assert cells("漢字ab") == 6
    assert fitted("漢字漢字", 5) == "漢字…"


def test_names_cut_in_the_middle_keep_what_tells_them_apart() -> None:
    assert elided("Integration tests (3.11, arm64)", 16) == "Integ…11, arm64)"
    assert elided("short", 16) == "short"


def test_lines_are_indented_and_ended() -> None:
    assert indented("a\n\nb\n", "  ") == "  a\n  \n  b\n"
    assert indented("no newline", "") == "no newline\n"


def test_prose_is_broken_between_words() -> None:
    assert wrapped("one two three", 10) == ["one two", "three"]


def test_counts() -> None:
    assert [counted(0, "step"), counted(1, "step"), counted(2, "step")] == ["0 steps", "1 step", "2 steps"]


def test_symbols_fall_back_to_ascii_of_the_same_width() -> None:
    assert "✓ ✗ ○ ⊘ ■ ▶ ▸ │ ━ … ⠋ ü".encode("ascii", SYMBOL_ERRORS) == b"+ x o - # > > | = ~ | ?"
    assert "\ud800".encode("utf-8", SYMBOL_ERRORS) == b"?"
