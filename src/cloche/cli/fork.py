"""``cloche fork``: try several ways of carrying out the step that failed, all from the same moment."""

from __future__ import annotations

import sys

import click


@click.command("fork")
@click.argument("run")
@click.option(
    "--try",
    "scripts",
    multiple=True,
    required=True,
    metavar="SCRIPT",
    help="What to run instead. Repeatable.",
)
@click.option(
    "--at",
    metavar="JOB/STEP",
    help="Instead of this step (default: the one that failed); see `cloche rewind --to`.",
)
@click.option(
    "--pick", type=click.IntRange(min=1), metavar="N", help="Go on with the Nth of them, if it succeeds."
)
@click.option("--output", type=click.Choice(["console", "json"]), default="console", show_default=True)
def fork(*, run: str, scripts: tuple[str, ...], at: str | None, pick: int | None, output: str) -> None:
    """Carry out a step of RUN in several ways, each in a VM of its own made from the same cut.

    Tells which of them succeed, in what time, and how their output and the files they write differ. Nothing of RUN
    is changed by it; `--pick` then goes on with the run from that cut, with that script for the step's.

    Ends with 0 when one of them succeeds (with `--pick`: when the run does), else with 1.
    """
    from cloche.cli.run import import_asyncio

    import_asyncio()
    from cloche.cli.forking import ForkOptions, fork_run

    sys.exit(fork_run(ForkOptions(run, scripts, at, pick, output)))
