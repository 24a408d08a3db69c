"""docs/cli.md tells of every command and option, of no other, and of the exit codes as they are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from cloche import errors
from cloche.cli.root import cloche

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = (Path(__file__).parents[3] / "docs/cli.md").read_text(encoding="utf-8")


def commands(
    command: click.Command = cloche, name: str = "cloche", parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name."""
    yield name, command
    if isinstance(command, click.Group):
        ctx = click.Context(command, parent=parent)
        for sub in command.list_commands(ctx):
            found = command.get_command(ctx, sub)
            assert found is not None
            yield from commands(found, f"{name} {sub}", ctx)


COMMANDS = dict(commands())


def section(name: str) -> str:
    """What the page says under a command's heading, up to the next command's."""
    heading = "## Everywhere" if name == "cloche" else f"# `{name}`\n"
    assert heading in DOCS, f"docs/cli.md has no heading for `{name}`"
    return re.split(r"\n#+ (?:`cloche|Everywhere)", DOCS.partition(heading)[2])[0]


def options(command: click.Command) -> set[str]:
    return {
        option
        for param in command.params
        if isinstance(param, click.Option)
        for option in (*param.opts, *param.secondary_opts)
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_options_are_those_of_the_page(name: str) -> None:
    rows = re.findall(r"^\| ((?:`--?[\w-]+`(?:, )?)+)", section(name), re.MULTILINE)
    told = {option for row in rows for option in re.findall(r"`(--?[\w-]+)`", row)}
    assert told - {"-h", "--help"} == options(COMMANDS[name])


def test_the_exit_codes_are_the_codes() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS, re.MULTILINE)}
    assert told == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_the_examples_are_commands() -> None:
    lines = [line.partition(" #")[0] for line in DOCS.splitlines() if line.startswith("$ cloche")]
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line.partition("|")[0])[1:]
        name = " ".join(words[:2])
        command = COMMANDS[name]
        command.make_parser(click.Context(command)).parse_args(words[2:])
