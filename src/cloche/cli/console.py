"""Telling people things on standard error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

    from cloche.errors import ClocheError

_RED, _DIM, _RESET = "\x1b[31m", "\x1b[2m", "\x1b[0m"


def tell_error(error: ClocheError) -> None:
    """Write what happened, where, and what to do next."""
    from cloche.errors import WorkflowError

    red, dim, reset = (_RED, _DIM, _RESET) if colour(sys.stderr) else ("", "", "")
    if isinstance(error, WorkflowError):
        lines = [f"{red}error{reset}: {item}" for item in error.diagnostics]
    else:
        lines = [f"{red}error{reset}: {error}"]
        if error.hint:
            lines.append(f"{dim}  hint: {error.hint}{reset}")
    sys.stderr.write("\n".join(lines) + "\n")


def note(text: str) -> None:
    """Write a line about what is going on, for whoever waits."""
    dim, reset = (_DIM, _RESET) if colour(sys.stderr) else ("", "")
    sys.stderr.write(f"{dim}cloche: {text}{reset}\n")
    sys.stderr.flush()


def colour(stream: TextIO) -> bool:
    """Return whether colours belong on ``stream``: a terminal that shows them, and nobody said no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
