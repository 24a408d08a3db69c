"""``cloche status``: what the daemon has and does."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NOT_UP = 3
"""The exit code of `systemctl status` for what is not running, too."""


@click.command("status")
@click.option("--output", type=click.Choice(["console", "json"]), default="console", show_default=True)
def status(*, output: str) -> None:
    """Tell whether the daemon is up, what its pool holds, and who has a VM. Ends with 3 when it is not up."""
    from cloche.cli.asking import ask

    told = asyncio.run(ask({"op": "status"}))
    if output == "json":
        click.echo(json.dumps({"up": told is not None, **(told or {})}, indent=2))
    elif told is None:
        click.echo("cloche is not up; `cloche up` starts it")
    else:
        click.echo("\n".join(_lines(told)))
    sys.exit(0 if told is not None else _NOT_UP)


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    from cloche.units import format_duration

    now = time.time()
    ending = ", ending" if told["draining"] else ""
    yield f"cloche {told['version']} is up (process {told['pid']}, for {format_duration(now - told['since'])}{ending})"
    for name, stats in told["providers"].items():
        pool = stats["pool"]
        yield f"{name}: " + ", ".join(
            f"{count} {what}" for what, count in pool.items() if isinstance(count, int)
        )
    for session in told["sessions"]:
        took = format_duration(now - session["since"])
        whose = f"process {session['pid']}"
        if session.get("kept_until"):
            left = format_duration(max(session["kept_until"] - now, 0.0))
            whose = f"kept for another {left}: cloche shell {session['run']}"
        yield (
            f"  {session['id']} · {session['workflow']!r} on {session['vm']} ({session['provider']}) for {took},"
            f" {whose}"
        )
