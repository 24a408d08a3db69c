"""``cloche rewind``: go on with a run from before the step that failed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloche.execution.resume import Side


@click.command("rewind")
@click.argument("run")
@click.option(
    "--to",
    metavar="JOB/STEP",
    help="Go on from before this step: a job's id or name, a step's number, id or name.",
)
@click.option(
    "--ours", "side", flag_value="ours", help="Where a step changed a file that you changed too: take yours."
)
@click.option("--theirs", "side", flag_value="theirs", help="In that case: take the step's, without a word.")
@click.option(
    "--shell",
    is_flag=True,
    help="First a shell on this terminal, where the step is about to run: what it does stays.",
)
@click.option(
    "--output", type=click.Choice(["console", "plain", "jsonl"]), default="console", show_default=True
)
@click.option("-q", "--quiet", is_flag=True, help="Only errors and how it ended.")
@click.option("-v", "--verbose", is_flag=True, help="Cloche's own log too, on standard error.")
def rewind(
    *, run: str, to: str | None, side: Side | None, shell: bool, output: str, quiet: bool, verbose: bool
) -> None:
    """Go on with RUN from before the step that failed: the VM as it was then, the workflow as it is now.

    RUN is an id that `cloche runs` lists, a unique beginning of one, or `last`. What was carried out of the workflow
    must be what it was; files that were changed in the repository since go to the job's workspace.

    A run can be rewound that was started with `cloche run --snapshot`, any number of times. Ends as `cloche run` does.
    """
    from cloche.cli.run import import_asyncio

    import_asyncio()
    from cloche.cli.rewinding import RewindOptions, rewind_run

    sys.exit(rewind_run(RewindOptions(run, to, side, output, quiet, verbose, shell=shell)))
