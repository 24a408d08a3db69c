"""``cloche runs``: which runs can go on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.store.runs import KeptRun, RunStore


@click.command("runs")
@click.option(
    "--forget", metavar="RUN", multiple=True, help="Remove this run, with all that was kept. Repeatable."
)
@click.option("--output", type=click.Choice(["console", "json"]), default="console", show_default=True)
def runs(*, forget: tuple[str, ...], output: str) -> None:
    """List the runs that `cloche rewind` can go on with, the latest first, and from before which steps."""
    from cloche.cli.running import open_store
    from cloche.config import load_settings

    store = open_store(load_settings())
    store.expire()
    for name in forget:
        store.remove(store.find(name))
    found = store.runs()
    if output == "json":
        click.echo(json.dumps([_told(store, run) for run in found], indent=2))
    elif not found:
        click.echo("no run can go on; `cloche run --snapshot on-failure` keeps those that fail")
    else:
        click.echo("\n".join(line for run in found for line in _lines(store, run)))


def _told(store: RunStore, run: KeptRun) -> dict[str, Any]:
    facts = run.facts
    return {
        "run": facts.run_id,
        "workflow": facts.workflow,
        "path": facts.path,
        "root": facts.root,
        "of": facts.of,
        "began": facts.began,
        "ended": facts.ended,
        "conclusion": facts.conclusion,
        "live": run.live,
        "size": run.size,
        "until": store.until(run),
        "cuts": [
            {
                "to": cut.facts.shown,
                "job": cut.facts.job,
                "leg": cut.facts.leg,
                "step": cut.facts.step,
                "name": cut.facts.step_name,
                "at": cut.facts.at,
                "size": cut.facts.size,
                "failed": cut.facts.number in facts.failed,
            }
            for cut in run.cuts
        ],
    }


def _lines(store: RunStore, run: KeptRun) -> Iterator[str]:
    from cloche.units import format_duration, format_size

    facts, now = run.facts, time.time()
    ended = "goes on" if run.live else facts.conclusion or "killed"
    kept = "" if run.live else f", for {format_duration(max(store.until(run) - now, 0))} more"
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.began))
    yield f"{facts.run_id} · {facts.workflow!r}, {began}, {ended} · {format_size(run.size)}{kept} · {facts.root}"
    for cut in run.cuts:
        failed = ", which failed" if cut.facts.number in facts.failed else ""
        yield f"  before {cut.facts.shown} {cut.facts.step_name!r}{failed} · {format_size(cut.facts.size)}"
