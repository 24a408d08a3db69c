"""What must not be shown is found in every form; see cloche.execution.masking."""

from __future__ import annotations

import base64
import json
from itertools import count
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.execution.masking import Masker, TooManyMasksError

# "*" is left out: next to a mask it would make a text look as if it held a secret that has one.
SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="*"), min_size=1, max_size=40
).filter(str.strip)
TEXTS = st.text(st.characters(max_codepoint=0xD7FF, exclude_characters="*"), max_size=80)


def test_a_value_is_replaced() -> None:
    assert Masker(["hunter2"]).mask("the password is hunter2!") == "the password is ***!"


def test_nothing_to_mask_returns_the_text() -> None:
    assert Masker().mask("plain") == "plain"


@pytest.mark.parametrize("value", ["", " ", "\n\t"])
def test_a_blank_value_masks_nothing(value: str) -> None:
    assert Masker([value]).mask("a b\nc\t") == "a b\nc\t"


def test_overlapping_and_adjoining_matches_become_one() -> None:
    masker = Masker(["abcd", "cdef"])

    assert masker.mask("-abcdef-") == "-***-"
    assert masker.mask("-abcdabcd-") == "-***-"
    assert masker.mask("-abcd-cdef-") == "-***-***-"


def test_each_line_of_a_value_is_a_secret() -> None:
    masker = Masker(["-----BEGIN KEY-----\nMIIBIjANBg\r\n  kqhkiG9w0B  \n\n"])

    assert masker.mask("MIIBIjANBg") == "***"
    assert masker.mask("[kqhkiG9w0B]") == "[***]"
    assert masker.mask("\n  \n") == "\n  \n"


def test_a_value_added_later_is_masked_from_then_on() -> None:
    masker = Masker(["first"])
    assert masker.mask("first second") == "*** second"

    masker.add("second")

    assert masker.mask("first second") == "*** ***"


def test_many_values_added_between_lines_are_all_found() -> None:
    masker = Masker()
    values = [f"value-{number:04}" for number in range(300)]
    for value in values:
        masker.add(value)
        assert masker.mask(f"<{value}>") == "<***>"

    assert masker.mask(" ".join(values)) == " ".join(["***"] * 300)


@given(SECRETS, TEXTS, TEXTS)
def test_a_secret_never_survives(secret: str, before: str, after: str) -> None:
    assert secret not in Masker([secret]).mask(before + secret + after)


@given(st.binary(max_size=7), st.text("abcdefgh01", min_size=6, max_size=90), st.binary(max_size=7))
def test_base64_of_a_text_around_a_secret_shows_nothing_that_decodes_to_it(
    before: bytes, secret: str, after: bytes
) -> None:
    encoded = base64.b64encode(before + secret.encode() + after).decode()

    masked = Masker([secret]).mask(encoded)

    assert "***" in masked
    assert len(masked.replace("***", "")) <= len(base64.b64encode(before + after)) + 4


def test_base64_folded_at_76_columns_is_masked_line_by_line() -> None:
    secret = "".join(f"{number:03}" for number in range(100))
    folded = base64.encodebytes(secret.encode()).decode()

    assert set(Masker([secret]).mask(folded).split()) == {"***"}


@pytest.mark.parametrize(
    "written",
    [
        json.dumps('p"w\\d\né')[1:-1],
        json.dumps('p"w\\d\né', ensure_ascii=False)[1:-1],
        quote('p"w\\d\né', safe=""),
    ],
)
def test_escaped_forms_are_masked(written: str) -> None:
    assert Masker(['p"w\\d\né']).mask(f"<{written}>") == "<***>"


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        ("a b&c<d>", "a+b%26c%3Cd%3E"),
        ("it's(me)!", "it's(me)!"),
        ("it's(me)!", "it%27s%28me%29%21"),
        ("<a&b>", "&lt;a&amp;b&gt;"),
        ("it's", "it''s"),
        ("it's", "it'\\''s"),
        ('say "x"', 'say \\"x\\"'),
        ('"abcdefgh"', "abcdefgh"),
    ],
)
def test_forms_of_other_languages_are_masked(secret: str, written: str) -> None:
    assert Masker([secret]).mask(f"<{written}>") == "<***>"


def test_what_a_guest_may_add_is_bounded() -> None:
    masker = Masker(["mine"])

    def add_without_end() -> None:
        for number in count():
            masker.add(f"{number:05}" * 2000, bounded=True)

    with pytest.raises(TooManyMasksError):
        add_without_end()

    assert masker.mask("mine") == "***"


def test_holds_secret() -> None:
    masker = Masker(["hunter2"])

    assert masker.holds_secret("x" + base64.b64encode(b"hunter2").decode())
    assert not masker.holds_secret("hunter")
