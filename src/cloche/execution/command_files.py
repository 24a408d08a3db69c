"""The files that a step says things in: where they are for one step, and what they say when it ended."""

from __future__ import annotations

import os
from dataclasses import field
from typing import TYPE_CHECKING

from cloche.execution.contexts import COMMAND_FILES
from cloche.execution.file_commands import (
    FileCommandError,
    read_pairs,
    read_paths,
    read_summary,
    refused_variable,
)
from cloche.execution.line_commands import Assign, Issue, command_failed
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Literal

    from cloche.expressions import Value
    from cloche.vm.guest import CollectedFile

_PREFIXES = {
    "path": "add_path_",
    "env": "set_env_",
    "step_summary": "step_summary_",
    "state": "save_state_",
    "output": "set_output_",
}


@record
class Summary:
    """What a step wrote to GITHUB_STEP_SUMMARY."""

    markdown: str


@record
class CommandFiles:
    """The files of one step, fresh for it. ``paths`` maps their names in the ``github`` context to paths."""

    paths: Mapping[str, str] = field(default_factory=lambda: _paths(os.urandom(16).hex()))

    def context(self) -> dict[str, Value]:
        """Return the files' entries of the ``github`` context, which become ``GITHUB_ENV`` and so on."""
        return dict(self.paths)

    def empty(self) -> dict[str, bytes]:
        """Return the files as they are before the step."""
        return dict.fromkeys(self.paths.values(), b"")

    def read(self, collected: Mapping[str, CollectedFile]) -> Iterator[Assign | Issue | Summary]:
        """Yield what the step wrote. What stands before a mistake counts; a mistake fails the step."""
        for kind, path in self.paths.items():
            if (file := collected.get(path)) is None:
                continue
            if file.truncated:
                too_long = f"The file is longer than the {len(file.content) >> 20} MiB that are read of it."
                yield from command_failed(f"file command '{kind}'", too_long)
                continue
            try:
                yield from _read(kind, file.content)
            except FileCommandError as error:
                yield from command_failed(f"file command '{kind}'", str(error))


def _paths(suffix: str) -> dict[str, str]:
    return {kind: f"{COMMAND_FILES}/{prefix}{suffix}" for kind, prefix in _PREFIXES.items()}


def _read(kind: str, content: bytes) -> Iterator[Assign | Issue | Summary]:
    match kind:
        case "path":
            yield from (Assign("path", "", path) for path in read_paths(content))
        case "env":
            for name, value in read_pairs(content):
                refused = refused_variable(name)
                yield Issue("error", refused) if refused else Assign("env", name, value)
        case "step_summary":
            yield from _read_summary(content)
        case "state":
            yield from _assigns("state", content)
        case "output":
            yield from _assigns("output", content)


def _assigns(kind: Literal["state", "output"], content: bytes) -> Iterator[Assign]:
    for name, value in read_pairs(content):
        yield Assign(kind, name, value)


def _read_summary(content: bytes) -> Iterator[Issue | Summary]:
    """Yield the summary; one that is too long is an error that does not fail the step."""
    try:
        if markdown := read_summary(content):
            yield Summary(markdown)
    except FileCommandError as error:
        yield Issue("error", str(error))
