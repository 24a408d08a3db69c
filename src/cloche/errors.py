"""Every error Cloche raises on purpose: what happened, where, and what to do next.

Exit codes are part of the interface: 0 success, 1 the workflow failed, 2 the workflow or the command line is
wrong, 3 no VM could be had, 130 interrupted.
"""

from __future__ import annotations

from typing import ClassVar

from cloche.records import record

EXIT_SUCCESS = 0
EXIT_WORKFLOW_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_VM = 3
EXIT_INTERRUPTED = 130


@record
class Position:
    """A place in a file the user wrote; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@record
class Diagnostic:
    """One thing wrong with a file: the message, its place and, where we have one, a hint."""

    message: str
    position: Position
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.position}: {self.message}"
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class ClocheError(Exception):
    """Base of all: ``message`` says what happened, ``hint`` what to do next."""

    exit_code: ClassVar[int] = EXIT_WORKFLOW_FAILED

    def __init__(self, message: str, *, hint: str | None = None, position: Position | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.position = position

    def __str__(self) -> str:
        return f"{self.position}: {self.message}" if self.position else self.message


class UsageError(ClocheError):
    """The command line, the environment or a configuration file is wrong."""

    exit_code = EXIT_USAGE


class WorkflowError(ClocheError):
    """A workflow file is wrong or asks for what Cloche does not do; raised before any VM is allocated."""

    exit_code = EXIT_USAGE

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        first = diagnostics[0]
        super().__init__("\n".join(str(d) for d in diagnostics))
        self.hint = first.hint
        self.diagnostics = diagnostics


class ImageError(ClocheError):
    """An image cannot be built, imported or found."""

    exit_code = EXIT_NO_VM


class ProviderError(ClocheError):
    """A provider cannot make a VM here (no QEMU, no KVM, a boot that failed)."""

    exit_code = EXIT_NO_VM


class SessionLimitReached(ClocheError):  # noqa: N818 - the mission's name for it
    """The limit of concurrent sessions is reached; the active ones go on undisturbed."""

    exit_code = EXIT_NO_VM


class GuestError(ClocheError):
    """The guest broke the protocol, died, or did not answer before its deadline."""


class GuestLost(GuestError):  # noqa: N818 - a state of the guest, not a mistake of the caller
    """The guest's channel closed or its VM ended while something was under way."""


class GuestTimeout(GuestError):  # noqa: N818 - reads as what happened
    """The guest did not answer before the deadline that the message names."""
