"""Choosing the display that suits the stream it goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self, TextIO

    from cloche.events import Event

Output = Literal["console", "plain", "jsonl"]


class Reporter(Protocol):
    """A subscriber that shows runs. Leave the context when they are over, however they ended."""

    def __enter__(self) -> Self:
        """Take the terminal."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is still owed and give the terminal back as it was."""

    def __call__(self, event: Event, /) -> None:
        """Show one event. ClocheError when the output cannot be written; a closed pipe is no error."""

    def log(self, line: str) -> None:
        """Write a line of Cloche's own log to standard error without disturbing what is shown."""


def make_reporter(
    output: Output,
    quiet: bool,  # noqa: FBT001 - the -q of the command line, passed on
    stdout: TextIO,
    stderr: TextIO,
    env: Mapping[str, str],
    *,
    multiple: bool,
) -> Reporter:
    """Choose the reporter for ``--output`` and ``-q``.

    ``console`` needs a terminal that can move its cursor; elsewhere it becomes ``plain``. ``quiet`` does not
    touch ``jsonl``: that stream is for programs and always whole. ``multiple`` says that several workflows
    share the stream. ``env`` is asked for NO_COLOR, TERM and GitHub's switches for debug lines, RUNNER_DEBUG
    and ACTIONS_STEP_DEBUG (https://docs.github.com/actions/monitoring-and-troubleshooting-workflows).
    """
    if output == "jsonl":
        from cloche.report.jsonl import JsonLines

        return JsonLines(stdout, stderr)
    if quiet:
        from cloche.report.quiet import Quiet

        return Quiet(stdout, stderr)
    debug = env.get("RUNNER_DEBUG") == "1" or env.get("ACTIONS_STEP_DEBUG") == "true"
    if output == "console" and stdout.isatty() and env.get("TERM", "dumb") not in {"", "dumb", "unknown"}:
        from cloche.report.console import ConsoleReporter

        return ConsoleReporter(stdout, stderr, env, multiple=multiple, debug=debug)
    from cloche.report.plain import Plain

    return Plain(stdout, stderr, multiple=multiple, debug=debug)
