"""``cloche down``: end the daemon."""

from __future__ import annotations

import asyncio

import click


@click.command("down")
@click.option("--now", is_flag=True, help="End the runs too that have a VM of the daemon's.")
def down(*, now: bool) -> None:
    """End the daemon once its runs have ended, and with it every VM it keeps ready."""
    from cloche.cli.asking import ask, wait_for_end
    from cloche.cli.console import note

    status = asyncio.run(ask({"op": "down", "now": now}))
    if status is None:
        click.echo("no daemon is up")
        return
    if status["sessions"] and not now:
        note(f"waiting for {len(status['sessions'])} runs to end; `cloche down --now` does not wait")
    wait_for_end()
    click.echo("cloche is down")
