import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.expressions.errors import ExpressionError, LexingError, ParsingError, Source
from cloche.expressions.names import Names
from cloche.expressions.parser import parse_tree
from cloche.expressions.syntax import (
    Call,
    Comparison,
    Context,
    Index,
    Literal,
    Logical,
    Node,
    Not,
    Wildcard,
    walk,
)

NAMES = Names(None, None)


def tree(text: str) -> Node | None:
    return parse_tree(Source(text, 0, len(text)), NAMES)


def shape(node: Any) -> Any:
    """The tree without its offsets."""
    if isinstance(node, tuple):
        return tuple(shape(part) for part in node)
    if not dataclasses.is_dataclass(node):
        return node
    parts = [getattr(node, field.name) for field in dataclasses.fields(node) if field.name != "offset"]
    return (type(node).__name__, *(shape(part) for part in parts))


def refused(text: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        tree(text)
    return caught.value.message.removesuffix(f" within expression: {text}")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("1 || 2 && 3", "1 || (2 && 3)"),
        ("1 && 2 == 3", "1 && (2 == 3)"),
        ("1 == 2 < 3", "1 == (2 < 3)"),
        ("!1 < 2", "(!1) < 2"),
        ("!github.ref", "!(github.ref)"),
        ("1 < 2 < 3", "(1 < 2) < 3"),
        ("1 == 2 != 3", "(1 == 2) != 3"),
        ("github.a.b", "(github.a).b"),
        ("github['a']", "github.a"),
        ("github[*]", "github.*"),
    ],
)
def test_precedence(text: str, same: str) -> None:
    assert shape(tree(text)) == shape(tree(same))


def test_chains_are_flat_however_they_are_bracketed() -> None:
    assert shape(tree("1 && (2 && 3) && 4")) == shape(tree("1 && 2 && 3 && 4"))


def test_nodes_know_where_they_are_in_the_whole_text() -> None:
    whole = "${{ a || format('x', !github.ref == 1) }}"
    root = parse_tree(Source(whole, 4, 38), Names(["a", "github"], ()))
    marks = {type(node).__name__: whole[node.offset] for node in walk(root)}
    assert marks == {
        "Logical": "|",
        "Context": "g",
        "Call": "f",
        "Literal": "1",
        "Comparison": "=",
        "Not": "!",
        "Index": "r",
    }


def test_an_empty_text_has_no_tree() -> None:
    assert tree(" \n") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2", "Unexpected symbol: '2'. Located at position 3"),
        ("github.()", "Unexpected symbol: '('. Located at position 8"),
        ("github.1", "Unexpected symbol: '1'. Located at position 8"),
        ("'a'.5", "Unexpected symbol: '.5'. Located at position 4"),
        ("'a'['b']", "Unexpected symbol: '['. Located at position 4"),
        ("()", "Unexpected symbol: ')'. Located at position 2"),
        ("(1]", "Unexpected symbol: ']'. Located at position 3"),
        ("github[1)", "Unexpected symbol: ')'. Located at position 9"),
        ("1)", "Unexpected symbol: ')'. Located at position 2"),
        ("(1, 2)", "Unexpected symbol: ','. Located at position 3"),
        ("join(1,)", "Unexpected symbol: ')'. Located at position 8"),
        ("join(,1)", "Unexpected symbol: ','. Located at position 6"),
        ("*", "Unexpected symbol: '*'. Located at position 1"),
        ("1 *", "Unexpected symbol: '*'. Located at position 3"),
        ("1 !2", "Unexpected symbol: '!'. Located at position 3"),
        ("== 1", "Unexpected symbol: '=='. Located at position 1"),
        ("1 ==", "Unexpected end of expression: '=='. Located at position 3"),
        ("(1", "Unexpected end of expression: '1'. Located at position 2"),
        ("github.", "Unexpected end of expression: '.'. Located at position 7"),
        ("join(", "Unexpected end of expression: '('. Located at position 5"),
        ("!", "Unexpected end of expression: '!'. Located at position 1"),
        ("nothing.x", "Unrecognized named-value: 'nothing'. Located at position 1"),
        ("1 && nothing(1", "Unrecognized function: 'nothing'. Located at position 6"),
        ("join()", "Too few parameters supplied: 'join'. Located at position 1"),
        ("contains(1, 2, 3)", "Too many parameters supplied: 'contains'. Located at position 1"),
        (
            "case(true, 1, true, 2)",
            (
                "Even number of parameters supplied, requires an odd number of parameters: "
                "'case'. Located at position 1"
            ),
        ),
        ("always(1)", "Too many parameters supplied: 'always'. Located at position 1"),
    ],
)
def test_what_makes_no_expression_is_refused_in_githubs_words(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize("text", ["1 2 @", "nothing @", "1 @ 2", "'a'.b", "github..ref"])
def test_what_is_no_token_goes_before_what_makes_no_sense(text: str) -> None:
    with pytest.raises(LexingError):
        tree(text)


def test_the_leftmost_mistake_is_the_one_told() -> None:
    with pytest.raises(ParsingError, match="'2'"):
        tree("1 2 nothing")


def test_hints_name_what_is_known_here() -> None:
    with pytest.raises(ParsingError) as caught:
        parse_tree(Source("main", 0, 4), Names(["github", "env"], []))
    assert caught.value.hint == "contexts known here: env, github; text is written in single quotes"


def test_names_are_known_in_any_case() -> None:
    assert tree("GitHub.ref == StartsWith('a', 'b')") is not None


def test_a_function_can_be_narrowed_as_the_schema_writes_it() -> None:
    parse_tree(Source("success('a')", 0, 12), Names(None, ["success(0,MAX)"]))
    with pytest.raises(ParsingError, match="Too many parameters supplied"):
        parse_tree(Source("success('a')", 0, 12), Names(None, ["success(0,0)"]))


def test_fifty_levels_are_the_limit() -> None:
    assert tree("!" * 49 + "1") is not None
    assert refused("!" * 50 + "1") == "Exceeded max expression depth 50"
    assert tree("github" + ".a" * 49) is not None
    assert refused("github" + ".a" * 50) == "Exceeded max expression depth 50"
    assert refused("toJSON(" * 50 + "1" + ")" * 50) == "Exceeded max expression depth 50"
    assert tree("(" * 5000 + "1" + ")" * 5000) == Literal(5000, 1.0)
    assert tree("1 || " * 4000 + "1") is not None


def test_21000_utf16_units_are_the_limit() -> None:
    assert tree(f"'{'x' * 20998}'") is not None
    assert refused(f"'{'x' * 20999}'") == "Exceeded max expression length 21000"
    assert refused(f"'{'😀' * 10500}'") == "Exceeded max expression length 21000"


@pytest.mark.parametrize(
    "piece", ["(", "!", "github[", "toJSON(", ".", "'", "1==", "1&&", "-", "github.x", "0x"]
)
def test_any_amount_of_nesting_is_an_answer_not_a_crash(piece: str) -> None:
    for count in (60_000, 20_000 // len(piece)):
        with pytest.raises(ExpressionError):
            tree(piece * count + "\x00")


TEXT = st.text(st.sampled_from("ab'.*{}$ é"), max_size=4)
NUMBERS = st.floats(allow_nan=False).map(abs)
LEAVES: st.SearchStrategy[Node] = st.sampled_from(["github", "env"]).map(lambda name: Context(0, name)) | (
    st.none() | st.booleans() | NUMBERS | TEXT
).map(lambda value: Literal(0, value))


def branches(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    operators = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    indexable = nodes.filter(lambda node: not isinstance(node, Literal))
    return (
        nodes.map(lambda node: Not(0, node))
        | st.builds(
            lambda operator, left, right: Comparison(0, operator, left, right), operators, nodes, nodes
        )
        | st.builds(
            lambda operator, operands: Logical(0, operator, tuple(operands)),
            st.sampled_from(["&&", "||"]),
            st.lists(nodes, min_size=2, max_size=4),
        )
        | st.builds(lambda target, key: Index(0, target, key), indexable, nodes | st.just(Wildcard(0)))
        | st.lists(nodes, min_size=1, max_size=4).map(lambda arguments: Call(0, "format", tuple(arguments)))
    )


def written(node: Node) -> str:  # noqa: PLR0911 - one for each kind of node
    """The text of a tree, with every bracket it can have."""
    match node:
        case Literal(value=str(value)):
            return "'" + value.replace("'", "''") + "'"
        case Literal(value=bool() | None as value):
            return {None: "null", True: "true", False: "false"}[value]
        case Literal(value=float(value)):
            return "Infinity" if math.isinf(value) else repr(value)
        case Context(name=name):
            return name
        case Index(target=target, key=key):
            return f"({written(target)})[{written(key)}]"
        case Not(operand=operand):
            return f"!({written(operand)})"
        case Comparison(operator=operator, left=left, right=right):
            return f"({written(left)}) {operator} ({written(right)})"
        case Logical(operator=operator, operands=operands):
            return f" {operator} ".join(f"({written(operand)})" for operand in operands)
        case Call(arguments=arguments):
            return f"format({', '.join(map(written, arguments))})"
        case _:
            return "*"


def flat(node: Any) -> Any:
    """The shape with nested chains of one operator made one chain, as the parser makes them."""
    if not isinstance(node, tuple):
        return node
    parts = tuple(flat(part) for part in node)
    if parts[:1] != ("Logical",):
        return parts
    operands = [
        part for operand in parts[2] for part in (operand[2] if operand[:2] == parts[:2] else (operand,))
    ]
    return (*parts[:2], tuple(operands))


@given(st.recursive(LEAVES, branches, max_leaves=12))
def test_what_is_written_is_what_is_read(node: Node) -> None:
    assert shape(tree(written(node))) == flat(shape(node))


@given(
    st.text(max_size=40) | st.lists(st.sampled_from([*"()[],.*!<>=&|'0 ", "github", "join("])).map("".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    offset = 0
    try:
        tree(text)
    except ExpressionError as error:
        offset = error.offset
    assert 0 <= offset <= len(text)
