"""YAML as GitHub reads it: types, positions, anchors, limits, and no input that hurts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.errors import WorkflowError
from cloche.workflow.nodes import Mapping, Node, Scalar, Sequence
from cloche.workflow.yaml import Limits, read


def root(text: str | bytes) -> Mapping:
    node = read(text, "f.yml")
    assert isinstance(node, Mapping)
    return node


def value(text: str) -> object:
    node = root(f"key: {text}\n").get("key")
    assert isinstance(node, Scalar)
    return node.value


def problem(text: str | bytes, limits: Limits | None = None) -> str:
    with pytest.raises(WorkflowError) as caught:
        read(text, "f.yml", limits=limits)
    assert len(caught.value.diagnostics) == 1
    return str(caught.value.diagnostics[0]).splitlines()[0]


@pytest.mark.parametrize(
    "text", ["on", "off", "yes", "no", "y", "12:30", "1_000", "0b11", "1e", "NaN", "08x"]
)
def test_what_yaml_1_1_converts_stays_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("3.10", 3.1),
        ("-12", -12.0),
        ("0x1F", 31.0),
        ("0xffffffff", -1.0),
        ("0o17", 15.0),
        ("017", 17.0),
        (".5", 0.5),
        ("1.2E-2", 0.012),
        ("-.INF", float("-inf")),
        ("!!str 3.10", "3.10"),
        ("!!float 1", 1.0),
        ("'3.10'", "3.10"),
        ("!!null", None),
    ],
)
def test_core_types(text: str, expected: object) -> None:
    result = value(text)
    assert result == expected
    assert type(result) is type(expected)


def test_not_a_number_is_a_number() -> None:
    result = value(".nan")
    assert isinstance(result, float)
    assert result != result  # noqa: PLR0124 - that is what NaN is


def test_a_scalar_keeps_what_was_typed() -> None:
    node = root("a: 3.10\nb: '3.10'\nc: |\n  3.10\n")
    plain, quoted, block = (node.get(key) for key in "abc")
    assert isinstance(plain, Scalar)
    assert isinstance(quoted, Scalar)
    assert isinstance(block, Scalar)
    assert (plain.text, plain.quoted) == ("3.10", False)
    assert (quoted.value, quoted.quoted) == ("3.10", True)
    assert (block.value, block.quoted) == ("3.10\n", True)


def test_positions_count_from_one_and_by_character() -> None:
    node = root("jobs:\n  é: [ä, b]\n  empty:\n")
    jobs = node.get("jobs")
    assert isinstance(jobs, Mapping)
    assert (jobs.position.line, jobs.position.column) == (2, 3)
    items = jobs.get("é")
    assert isinstance(items, Sequence)
    assert [(item.position.line, item.position.column) for item in items.items] == [(2, 7), (2, 10)]
    nothing = jobs.get("empty")
    assert nothing is not None
    assert (nothing.position.line, nothing.position.column) == (3, 9)


def test_an_alias_is_the_node_it_names() -> None:
    node = root("a: &x {k: v}\nb: *x\nc: [*x, *x]\n")
    assert node.get("b") == node.get("a")
    assert node.get("c") == Sequence((node.get("a"), node.get("a")), node.get("c").position)  # type: ignore[arg-type,union-attr]  # both are there


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert root(b"\xef\xbb\xbfa: b\n").get("a") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: c\n", "f.yml:2:1: The YAML is not valid: while scanning for the next token"),
        ("a: b: c\n", "f.yml:1:5: The YAML is not valid: mapping values are not allowed"),
        ("a: 'b\n", "f.yml:2:1: The YAML is not valid: while scanning a quoted scalar"),
        ("a: b\n---\nc: d\n", "f.yml:2:1: A second YAML document starts here"),
        ("", "f.yml:1:1: The workflow file is empty"),
        ("# nothing\n", "f.yml:1:1: The workflow file is empty"),
        ("a: *b\n", "f.yml:1:4: Unknown anchor 'b'"),
        ("a: &a [*a]\n", "f.yml:1:8: The anchor 'a' contains itself"),
        ("[a]: b\n", "f.yml:1:1: A key must be a plain value"),
        ("a: !x b\n", "f.yml:1:4: Unexpected tag '!x'"),
        ("a: 0x100000000\n", "f.yml:1:4: The value '0x100000000' on line 1 and column 4 is invalid"),
        ("a: \0\n", "f.yml:1:4: The character U+0000 is not allowed in YAML"),
        ("a: \ud800\n", "f.yml:1:4: The character U+D800 is not allowed in YAML"),
        (b"a: b\nc: \xff\n", "f.yml:2:4: The file is not valid UTF-8: byte 0xff"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str | bytes, expected: str) -> None:
    assert problem(text).startswith(expected)


def test_a_tab_and_an_odd_sign_come_with_advice() -> None:
    for text, advice in (("a:\n\tb: c\n", "use spaces"), ("a: @b\n", "put it in quotes")):
        with pytest.raises(WorkflowError) as caught:
            read(text, "f.yml")
        assert advice in (caught.value.diagnostics[0].hint or "")


def test_limits_are_github_s_and_count_aliases_in_full() -> None:
    assert "maximum file size of 8 characters" in problem("a: 34567890", Limits(characters=8))
    assert "depth exceeded" in problem("a: &x [[y]]\nb: [*x]\n", Limits(depth=3))
    read("a: &x [[y]]\nb: *x\n", "f.yml", limits=Limits(depth=3))
    assert "nodes exceeded" in problem("a: &x [y, y, y]\nb: *x\n", Limits(events=16))
    read("a: &x [y, y, y]\nb: *x\n", "f.yml", limits=Limits(events=20))
    assert "size exceeded" in problem(f"a: &x {'y' * 100}\nb: [{'*x, ' * 20}]\n", Limits(size=4000))


_HOSTILE = """
from cloche.errors import WorkflowError
from cloche.workflow.yaml import read

laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\\n"
for name, before in zip("bcdefghij", "abcdefghi"):
    laughs += f"{name}: &{name} [{','.join(['*' + before] * 10)}]\\n"
million = 1024 * 1024
for make in (
    lambda: "[" * 60_000, lambda: "{a: " * 60_000, lambda: "- " * 60_000, lambda: "? " * 60_000,
    lambda: laughs, lambda: b"a: b\\n" * 2_000_000, lambda: "a: " + "b" * (million - 3), lambda: "#" * million,
    lambda: "\\n" * million, lambda: "{" + "a," * 500_000, lambda: ": " * 500_000, lambda: "-\\n" * 500_000,
    lambda: "a: |\\n" + " x\\n" * 300_000, lambda: "".join(" " * i + "a:\\n" for i in range(1400)),
    lambda: "%TAG ! " + "x" * 900_000, lambda: '"' + "\\\\x41" * 200_000 + '"', lambda: "&a " * 300_000,
):
    try:
        read(make(), "f.yml")
    except WorkflowError:
        pass
with open("/proc/self/status") as status:  # not ru_maxrss: that remembers the parent's
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def test_no_input_takes_more_than_64_mb() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HOSTILE], capture_output=True, text=True, timeout=60, check=True
    )
    kibibytes = int(done.stdout)
    assert kibibytes < 64 * 1024


@settings(max_examples=2 * settings().max_examples)
@given(st.one_of(st.binary(), st.text(), st.text(alphabet="ab:-?*&![]{},'\"|>#%@\n \t<~0.")))
def test_any_input_is_a_tree_or_a_workflow_error(text: str | bytes) -> None:
    try:
        node = read(text, "f.yml")
    except WorkflowError as error:
        assert error.diagnostics[0].position.line >= 1  # noqa: PT017 - both outcomes are right
    else:
        assert all(place >= 1 for part in walk(node) for place in (part.position.line, part.position.column))


def walk(node: Node) -> list[Node]:
    if isinstance(node, Sequence):
        return [node, *(part for item in node.items for part in walk(item))]
    if isinstance(node, Mapping):
        return [node, *(part for key, item in node for part in (key, *walk(item)))]
    return [node]
