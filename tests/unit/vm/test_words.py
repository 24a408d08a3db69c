from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.vm.words import plain


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("disk full: ünïcode, tabs\tand\nlines", "disk full: ünïcode, tabs\tand\nlines"),
        ("\x1b[2Jgone", "\N{REPLACEMENT CHARACTER}[2Jgone"),
        ("over\rwritten", "over\N{REPLACEMENT CHARACTER}written"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}txt.exe", "\N{REPLACEMENT CHARACTER}txt.exe"),
        ("\x9b31m\0\x7f", "\N{REPLACEMENT CHARACTER}31m" + "\N{REPLACEMENT CHARACTER}" * 2),
    ],
)
def test_a_guests_words_give_the_terminal_no_orders(said: str, shown: str) -> None:
    assert plain(said) == shown


@given(st.text())
def test_whatever_a_guest_says_is_printable_and_no_longer(said: str) -> None:
    shown = plain(said)
    assert len(shown) == len(said)
    assert shown.replace("\n", "").replace("\t", "").isprintable()


def test_words_have_a_limit() -> None:
    assert plain("x" * 100_000) == "x" * 4096
