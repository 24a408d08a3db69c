"""GITHUB_ENV and its kin.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#environment-files
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.execution.file_commands import (
    MAX_SUMMARY,
    MAX_VALUE,
    FileCommandError,
    read_pairs,
    read_paths,
    read_summary,
    refused_variable,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def pairs(content: str | bytes) -> dict[str, str]:
    return dict(read_pairs(content.encode() if isinstance(content, str) else content))


def test_conformance(conformance: Callable[[str], list[dict[str, Any]]]) -> None:
    for row in conformance("file_commands.json"):
        content = "" if row.get("file_absent") else row["content_utf8"]
        if "error_contains" in row:
            with pytest.raises(FileCommandError, match=row["error_contains"]):
                pairs(content)
            continue
        values = pairs(content)
        if row["kind"] == "env":
            refused = {name for name in values if refused_variable(name)}
            assert len(refused) == row["issues"], row["name"]
            values = {name: value for name, value in values.items() if name not in refused}
        assert values == row["values"], row["name"]


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("", {}),
        ("\n\n", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=\n", {"A": "1", "B": ""}),
        ("A=b=c<<d", {"A": "b=c<<d"}),
        ("A<<=\nx\n=\n", {"A": "x"}),
        ("A<<E\nE\n", {"A": ""}),
        ("A<<E\n\nE\n", {"A": ""}),
        ("A<<E\n\n\nE", {"A": "\n"}),
        ("A<<E\none\n\ntwo\nE\nB=2", {"A": "one\n\ntwo", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=1\r\n", {"A": "1\r"}),
        (" A =1 ", {" A ": "1 "}),
        (codecs.BOM_UTF8 + b"A=1", {"A": "1"}),
        ("\ufeffA=1\n".encode("utf-16-le"), {"A": "1"}),
        ("\ufeffA=1\n".encode("utf-16-be"), {"A": "1"}),
        ("\ufeffA=1\n".encode("utf-32-le"), {"A": "1"}),
        (b"A=\xff", {"A": "\ufffd"}),
    ],
)
def test_values(content: str | bytes, values: dict[str, str]) -> None:
    assert pairs(content) == values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A", "Invalid format 'A'"),
        ("=1", "Name must not be empty"),
        ("<<E\nE", "Name must not be empty and delimiter must not be empty"),
        ("A<<\nx", "Name must not be empty and delimiter must not be empty"),
        ("A<<E\nx\n", "Matching delimiter not found 'E'"),
        ("A<<E\nx", "EOF marker missing new line"),
        ("A<<E", "Matching delimiter not found 'E'"),
        ("A=\0", "null character"),
        ("A=" + "x" * (MAX_VALUE + 1), "longer than 1 MiB"),
    ],
)
def test_mistakes_are_named(content: str, message: str) -> None:
    with pytest.raises(FileCommandError, match=message):
        pairs(content)


def test_what_stands_before_a_mistake_counts() -> None:
    reader = read_pairs(b"A=1\nmistake\nB=2")

    assert next(reader) == ("A", "1")
    with pytest.raises(FileCommandError):
        next(reader)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="=<\n\0", exclude_categories=["Cs"]), min_size=1),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        max_size=4,
    )
)
def test_what_the_documentation_says_to_write_is_read_back(values: dict[str, str]) -> None:
    blocks = (f"{name}<<ghadelimiter-1\n{value}\nghadelimiter-1\n" for name, value in values.items())
    written = "".join(blocks).encode()

    # A name that begins with U+FEFF would be taken for the file's byte order mark.
    assert pairs(b"\n" + written) == values


@given(st.binary(max_size=200))
def test_any_bytes_give_values_or_a_named_error(content: bytes) -> None:
    try:
        pairs(content)
    except FileCommandError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


def test_node_options_is_refused() -> None:
    assert refused_variable("node_options")
    assert refused_variable("NODE_OPTIONS_2") is None


def test_paths() -> None:
    assert read_paths(b"/opt/a\n\n/opt/b c\r\n/opt/d") == ["/opt/a", "/opt/b c", "/opt/d"]


def test_summary() -> None:
    assert read_summary("# Höhe\n".encode()) == "# Höhe\n"
    assert len(read_summary(b"x" * MAX_SUMMARY)) == MAX_SUMMARY


def test_a_summary_too_long_is_refused() -> None:
    with pytest.raises(FileCommandError, match="up to a size of 1024k, got 1025k"):
        read_summary(b"x" * (MAX_SUMMARY + 1024))
