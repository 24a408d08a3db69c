from __future__ import annotations

from pathlib import Path

from cloche.vm.fake.programs import PROGRAMS
from cloche.vm.fake.shell_commands import COMMANDS

DOCS = (Path(__file__).parents[4] / "docs/fake.md").read_text(encoding="utf-8")


def listed(row: str) -> set[str]:
    line = next(line for line in DOCS.splitlines() if line.startswith(f"| {row} |"))
    return {word.split()[0] for word in line.split("`")[1::2]}


def test_every_program_is_documented() -> None:
    assert listed("programs") == {*PROGRAMS, "bash", "sh"} - {"fake"}


def test_every_shell_command_is_documented() -> None:
    assert listed("its own commands") == set(COMMANDS)
