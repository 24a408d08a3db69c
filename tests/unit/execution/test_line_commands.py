"""Workflow commands in a step's output.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.execution.line_commands import (
    Assign,
    Command,
    CommandReader,
    Effect,
    Group,
    Issue,
    Mask,
    Output,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def read(*lines: str, **options: bool) -> list[Effect]:
    return list(CommandReader(**options).read("".join(f"{line}\n" for line in lines)))


def test_conformance(conformance: Callable[[str], list[dict[str, Any]]]) -> None:
    for row in conformance("line_commands.json"):
        command = parse(row["line"], {"do-something"})

        assert row["parses"] == (command is not None), row["line"]
        if command:
            assert command.name == row["command"], row["line"]
            assert command.data == row["data"], row["line"]
            assert dict(command.properties) == row["properties"], row["line"]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("::debug::text", Command("debug", "text")),
        ("  ::DEBUG::text", Command("DEBUG", "text")),
        ("::error file=a.py,line=3::x::y", Command("error", "x::y", {"file": "a.py", "line": "3"})),
        ("::error file=,line==3,=col=4::", Command("error", "", {"line": "3", "col": "4"})),
        ("before ##[group]Title", Command("group", "Title")),
        ("##[error file=a%5D.py;line=1]m", Command("error", "m", {"file": "a].py", "line": "1"})),
        ("::debug::100%25 %0Anext", Command("debug", "100% \nnext")),
    ],
)
def test_commands_are_understood(line: str, command: Command) -> None:
    assert parse(line, {"debug", "error", "group"}) == command


@pytest.mark.parametrize(
    "line",
    ["text ::debug::x", "::debug", "::unknown::x", ": :debug::x", "##[debug", "std::vector::size", "::", ""],
)
def test_other_lines_are_text(line: str) -> None:
    assert parse(line, {"debug"}) is None
    assert read(line) == [Output(line + "\n")]


def test_text_without_commands_is_passed_on_as_it_came() -> None:
    assert read("one", "std::string two", "three") == [Output("one\nstd::string two\nthree\n")]


def test_commands_part_the_text_around_them() -> None:
    assert read("one", "two", "::group::Build", "three", "::endgroup::", "four") == [
        Output("one\ntwo\n"),
        Group("Build"),
        Output("three\n"),
        Group(None),
        Output("four\n"),
    ]


def test_annotations_carry_their_place() -> None:
    assert read("::error file=a.py,line=3,endLine=3,col=5,endColumn=9,title=Oh::no") == [
        Issue("error", "no", title="Oh", file="a.py", line=3, end_line=3, column=5, end_column=9)
    ]
    assert read("::warning::careful", "::notice::by the way", "::debug::deep") == [
        Issue("warning", "careful"),
        Issue("notice", "by the way"),
        Issue("debug", "deep"),
    ]


@pytest.mark.parametrize(
    ("place", "line", "end_line", "column", "end_column"),
    [
        ("endLine=4", 4, 4, None, None),
        ("line=2,endColumn=4", 2, None, 4, 4),
        ("col=2", None, None, None, None),
        ("line=1,endLine=2,col=3", 1, 2, None, None),
        ("line=3,endLine=1", None, None, None, None),
        ("line=3,col=5,endColumn=1", 3, None, None, None),
        ("line=three", None, None, None, None),
    ],
)
def test_a_place_that_makes_no_sense_is_dropped(
    place: str, line: int | None, end_line: int | None, column: int | None, end_column: int | None
) -> None:
    issue = read(f"::error {place}::m")[-1]

    assert issue == Issue("error", "m", line=line, end_line=end_line, column=column, end_column=end_column)


def test_add_mask_comes_before_what_follows() -> None:
    assert read("::add-mask::s3cret", "s3cret") == [Mask("s3cret"), Output("s3cret\n")]


def test_add_mask_of_nothing_is_a_warning() -> None:
    (effect,) = read("::add-mask::  ")

    assert isinstance(effect, Issue)
    assert effect.level == "warning"


def test_stopped_commands_are_text_until_the_token() -> None:
    assert read("::stop-commands::resume-here", "::error::no", "::resume-here::", "::error::yes") == [
        Mask("resume-here"),
        Output("::stop-commands::resume-here\n"),
        Output("::error::no\n"),
        Output("::resume-here::\n"),
        Issue("error", "yes"),
    ]


@pytest.mark.parametrize("token", ["", "pause-logging", "error", "Add-Mask"])
def test_a_guessable_stop_token_fails_the_step(token: str) -> None:
    effects = read(f"::stop-commands::{token}", "::error::still read")

    assert [effect.failed for effect in effects if isinstance(effect, Issue)] == [True, True, False]


def test_any_stop_token_where_allowed() -> None:
    assert read("::stop-commands::error", "::error::x", allow_any_token=True) == [
        Output("::stop-commands::error\n"),
        Output("::error::x\n"),
    ]


def test_echo_shows_commands_but_never_masks() -> None:
    assert read("::echo::on", "::group::G", "::add-mask::x1", "::error::e", "::echo::OFF", "::group::H") == [
        Output("::group::G\n"),
        Group("G"),
        Output("::add-mask::***\n"),
        Mask("x1"),
        Issue("error", "e"),
        Output("::echo::OFF\n"),
        Group("H"),
    ]


def test_echo_of_anything_else_fails_the_step() -> None:
    first, second = read("::echo::maybe")

    assert first == Issue("error", "Unable to process command '::echo::maybe' successfully.", failed=True)
    assert isinstance(second, Issue)
    assert "'on', 'off'" in second.message


def test_set_output_and_save_state_work_with_a_warning() -> None:
    effects = read("::set-output name=a::1%0A2", "::save-state name=s::v")

    assert [effect for effect in effects if isinstance(effect, Assign)] == [
        Assign("output", "a", "1\n2"),
        Assign("state", "s", "v"),
    ]
    assert [effect.level for effect in effects if isinstance(effect, Issue)] == ["warning", "warning"]


def test_set_output_without_a_name_fails_the_step() -> None:
    effects = read("::set-output::1")

    assert effects[-1] == Issue(
        "error", "Required field 'name' is missing in ##[set-output] command.", failed=True
    )


@pytest.mark.parametrize("line", ["::set-env name=A::1", "::add-path::/opt/bin"])
def test_unsecure_commands_are_refused_unless_allowed(line: str) -> None:
    first, second = read(line)
    assert first == Issue("error", f"Unable to process command '{line}' successfully.", failed=True)
    assert isinstance(second, Issue)
    assert "ACTIONS_ALLOW_UNSECURE_COMMANDS" in second.message

    (effect,) = read(line, allow_unsecure=True)
    assert isinstance(effect, Assign)


def test_node_options_cannot_be_set() -> None:
    (effect,) = read("::set-env name=node_options::--inspect", allow_unsecure=True)

    assert isinstance(effect, Issue)
    assert effect.level == "error"
    assert not effect.failed


def test_problem_matchers_are_said_to_be_missing() -> None:
    (effect,) = read("::add-matcher::.github/matcher.json")

    assert isinstance(effect, Issue)
    assert "not supported" in effect.message


@given(st.lists(st.text("ab:#[]% ,=\t", max_size=12), max_size=6))
def test_text_that_is_no_command_survives_to_the_letter(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)

    assert "".join(effect.text for effect in CommandReader().read(text) if isinstance(effect, Output)) == text
