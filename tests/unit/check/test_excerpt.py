import pytest

from cloche.check.excerpt import excerpt


def test_the_caret_is_below_the_word() -> None:
    assert excerpt("on: push\njobs: 1\n", 2, 7) == "  2 | jobs: 1\n    |       ^"


def test_a_word_is_underlined_whole() -> None:
    assert excerpt("  runs-onn: x", 1, 3).splitlines()[1] == "    |   ^^^^^^^^"


@pytest.mark.parametrize("place", [(3, 1), (0, 1), (2, 1)])
def test_a_place_that_is_not_in_the_text_shows_nothing_or_an_empty_line(place: tuple[int, int]) -> None:
    shown = excerpt("on: push", *place)
    assert shown == "" or "^" in shown


def test_what_a_terminal_might_act_on_is_a_dot() -> None:
    assert "\x1b" not in excerpt("a\x1b[2Jb", 1, 1)


def test_wide_characters_and_tabs_move_the_caret() -> None:
    shown, carets = excerpt("名:\tx", 1, 4).splitlines()
    assert shown == "  1 | 名:    x"
    assert carets == "    |        ^"


def test_a_long_line_is_cut_around_the_place() -> None:
    shown, carets = excerpt("x" * 5000 + "!" + "y" * 5000, 1, 5001).splitlines()
    assert len(shown) < 150
    assert shown[carets.index("^")] == "!"


def test_many_lines_cost_little() -> None:
    assert excerpt("\n" * 1_000_000 + "end", 1_000_001, 1) == "  1000001 | end\n          | ^^^"
