import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.expressions.errors import LexingError, Source
from cloche.expressions.lexer import Kind, tokens
from cloche.expressions.values import WHITE_SPACE

PIECES = st.sampled_from([*"()[],.*!<>=&| '-+09aZ_\t\n\"@é", "true", "==", "&&", "'it''s'", "1.5"])


def read(text: str) -> list[tuple[Kind, str]]:
    return [(token.kind, token.text) for token in tokens(Source(text, 0, len(text)))]


def test_every_kind_of_token() -> None:
    assert read("f (a.b-c[*], 'it''s') || !(1.5e3 >= -.5)") == [
        (Kind.FUNCTION, "f"),
        (Kind.OPEN, "("),
        (Kind.NAME, "a"),
        (Kind.DOT, "."),
        (Kind.PROPERTY, "b-c"),
        (Kind.OPEN_INDEX, "["),
        (Kind.WILDCARD, "*"),
        (Kind.CLOSE_INDEX, "]"),
        (Kind.SEPARATOR, ","),
        (Kind.LITERAL, "'it''s'"),
        (Kind.CLOSE, ")"),
        (Kind.OPERATOR, "||"),
        (Kind.NOT, "!"),
        (Kind.OPEN, "("),
        (Kind.LITERAL, "1.5e3"),
        (Kind.OPERATOR, ">="),
        (Kind.LITERAL, "-.5"),
        (Kind.CLOSE, ")"),
    ]


def test_literals_have_their_values() -> None:
    text = "'it''s' null true false Infinity 0x10 -Infinity ''"
    values = [token.value for token in tokens(Source(text, 0, len(text)))]
    assert values == ["it's", None, True, False, float("inf"), 16, float("-inf"), ""]


def test_constants_are_spelled_exactly() -> None:
    assert [kind for kind, _ in read("True NULL nan")] == [Kind.NAME] * 3


def test_after_a_dot_every_word_is_a_property() -> None:
    assert read("a.true.format (1)")[2::2][:2] == [(Kind.PROPERTY, "true"), (Kind.PROPERTY, "format")]


def test_a_dot_begins_a_number_where_an_operand_may_stand() -> None:
    assert read("(.5") == [(Kind.OPEN, "("), (Kind.LITERAL, ".5")]
    assert read("a .b") == [(Kind.NAME, "a"), (Kind.DOT, "."), (Kind.PROPERTY, "b")]


@pytest.mark.parametrize(
    ("text", "symbol", "position"),
    [
        ("1 = 2", "=", 3),
        ("a &b", "&b", 3),
        ("a | b", "|", 3),
        ("'open", "'open", 1),
        ("'open''", "'open''", 1),
        ('"x"', '"x"', 1),
        ("a.b@c", "b@c", 3),
        ("1.2.3", "1.2.3", 1),
        ("0xFZ", "0xFZ", 1),
        ("-NaN", "-NaN", 1),
        ("..x", "..x", 1),
        ("'😀' $", "$", 6),
    ],
)
def test_what_is_no_token_is_named_with_its_position(text: str, symbol: str, position: int) -> None:
    with pytest.raises(LexingError) as caught:
        read(text)
    assert (
        caught.value.message
        == f"Unexpected symbol: '{symbol}'. Located at position {position} within expression: {text}"
    )


def test_a_hint_says_how_to_write_a_string() -> None:
    with pytest.raises(LexingError) as caught:
        read('github.ref == "main"')
    assert caught.value.hint == "strings are written in single quotes: 'text'"
    assert caught.value.offset == 14


def test_white_space_is_what_dotnet_says_it_is() -> None:
    assert read("\u00a01\u3000") == [(Kind.LITERAL, "1")]
    with pytest.raises(LexingError):
        read("\x1c1")


@given(st.lists(PIECES, max_size=20).map("".join) | st.text())
def test_tokens_are_the_text_without_its_spaces(text: str) -> None:
    source = Source(f"{text}]]", 0, len(text))
    end = 0
    stopped = len(text)
    try:
        for token in tokens(source):
            spaces = text[end : token.offset].strip(WHITE_SPACE)
            end = token.offset + len(token.text)
            assert (spaces, text[token.offset : end]) == ("", token.text)
    except LexingError as error:
        stopped = error.offset
    assert text[end:stopped].strip(WHITE_SPACE) == ""
