"""The command line: one file a command, heavy imports inside the command."""

from __future__ import annotations

import sys

from cloche.errors import EXIT_INTERRUPTED, ClocheError


def main() -> None:
    """Run the command line and end the process with Cloche's exit codes (docs/cli.md)."""
    from cloche.cli.root import cloche

    try:
        sys.exit(cloche.main(standalone_mode=True))
    except ClocheError as error:
        from cloche.cli.console import tell_error

        tell_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
