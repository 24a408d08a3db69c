"""The command line: one file a command, heavy imports inside the command."""

from __future__ import annotations

import gc as garbage  # `gc` is the command of that name, once it is imported
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_NEW_OBJECTS = 100_000
"""How many before Python searches for garbage: imports make half of that, and none of it is."""


def main() -> None:
    """Run the command line and end the process with Cloche's exit codes (docs/cli.md)."""
    _open_missing_streams()
    if sys.argv[1:2] == ["run"] and (code := _by_the_daemon()) is not None:
        sys.stderr.flush()
        os._exit(code)  # nothing is left to give back, and Python would take its time over it
    run_here()


def _by_the_daemon() -> int | None:
    from cloche.daemon.client import ask

    return ask(sys.argv[1:])


def run_here() -> NoReturn:
    """Run the command line in this process and end it."""
    from cloche.errors import EXIT_INTERRUPTED, ClocheError

    garbage.set_threshold(_NEW_OBJECTS)
    try:
        sys.exit(_call())
    except ClocheError as error:
        from cloche.cli.console import tell_error

        tell_error(error)
        sys.exit(error.exit_code)
    except OSError as error:  # what this machine refuses where nobody expected it
        sys.stderr.write(f"error: {error.filename or 'cloche'}: {error.strerror or error}\n")
        sys.exit(ClocheError.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        garbage.freeze()  # else Python searches all that was imported once more as it ends, for a sixth of a run's CPU


def _call() -> int:
    """Run the command; what click has to say against the command line is said here."""
    import click

    from cloche.cli.root import cloche
    from cloche.errors import EXIT_INTERRUPTED

    try:
        return cloche.main(prog_name="cloche", standalone_mode=False) or 0
    except click.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code


def _open_missing_streams() -> None:
    """Point standard streams that were closed at nothing: else the next open file takes their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - it lives as long as the process; a path would cost an import
