"""``cloche shell``: into the VM of a run that goes on, or of one that is kept."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cloche.errors import EXIT_WORKFLOW_FAILED, ClocheError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloche.terminal.visit import Address, Knocking, Visit

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("shell")
@click.argument("run", required=False)
@click.option("-j", "--job", help="The job, by its name or id, where several run.")
@click.option("--end", is_flag=True, help="No shell: give a VM back that is kept.")
def shell(*, run: str | None, job: str | None, end: bool) -> None:
    """Have a shell in the VM of RUN, in the root of its job, as its step finds it: environment, folder, user.

    RUN is a run that goes on, or one whose VM is kept (`cloche run --on-failure keep`): its id, or a beginning of it.
    Without RUN it is the only one there is.

    The shell's end is none of the run's; the run's end is the shell's. Without a terminal, commands are read from
    standard input. Secrets of the run are in its environment, and nothing that a shell shows is masked.

    Ends with the shell's exit code.
    """
    sys.exit(asyncio.run(_end(run) if end else _visit(run, job)))


async def _end(run: str | None) -> int:
    knocking = _knocking()
    address, told = await _choose(knocking, run)
    if not told.get("ends"):
        raise UsageError(f"{address.run} is not kept: it goes on", hint="Ctrl-C where it runs ends it")
    await knocking.end(address)
    click.echo(f"the VM of {address.run} is given back")
    return 0


async def _visit(run: str | None, job: str | None) -> int:
    from cloche.report.text import visible
    from cloche.terminal.console import Console, terminal_name

    knocking, console = _knocking(), Console()
    address, told = await _choose(knocking, run)
    visit = await knocking.enter(address, job=job, size=console.size, terminal=terminal_name())
    if console.is_terminal:
        job, step, workflow = map(visible, (*_names(visit.room), str(told.get("workflow"))))
        click.echo(f"cloche: in '{job}' of '{workflow}' ({address.run}), at '{step}'")
    return await _joined(visit, console)


async def _joined(visit: Visit, console: Any) -> int:
    from cloche.report.text import visible
    from cloche.terminal.joining import join_console

    joined = asyncio.ensure_future(join_console(visit, console))
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, joined.cancel)
    try:
        return (await joined).code
    except asyncio.CancelledError:
        return EXIT_WORKFLOW_FAILED
    except ClocheError as gone:
        sys.stderr.write(f"cloche: {visible(gone.message)}\n")
        return EXIT_WORKFLOW_FAILED
    finally:
        visit.close()


def _knocking() -> Knocking:
    from cloche.daemon.packets import Packets
    from cloche.terminal.visit import Knocking

    return Knocking(Packets)


async def _choose(knocking: Knocking, run: str | None) -> tuple[Address, Mapping[str, Any]]:
    """Find the one run that is meant. UsageError with what there is when that is not clear."""
    from cloche.config import doors_dir
    from cloche.terminal.visit import doors

    there = [(door, told) for door in doors(doors_dir()) if (told := await knocking.look(door)) is not None]
    meant = [found for found in there if run is None or _means(run, found[0].run)]
    if len(meant) == 1:
        return meant[0]
    if not there:
        raise UsageError(
            "there is no run to look into",
            hint="cloche run; or cloche run --on-failure keep, and the daemon keeps the VM",
        )
    what = f"no run {run!r} to look into" if run and not meant else "several runs to look into"
    raise UsageError(f"there is {what}" if not meant else f"there are {what}", hint=_listed(meant or there))


def _means(run: str, found: str) -> bool:
    return found.startswith((run, f"run-{run}"))


def _listed(there: Sequence[tuple[Address, Mapping[str, Any]]]) -> str:
    return "".join(f"\n    {line}" for door, told in there for line in _lines(door, told))


def _lines(door: Address, told: Mapping[str, Any]) -> Iterator[str]:
    from cloche.report.text import visible
    from cloche.units import format_duration

    kept = told.get("kept_until")
    state = f"kept for another {format_duration(max(kept - time.time(), 0.0))}" if kept else "running"
    yield f"{door.run} · {visible(str(told.get('workflow')))} · {state}"
    for room in told.get("rooms", ()):
        job, step = map(visible, _names(room))
        yield f"  --job '{job}' · {step}"


def _names(room: Mapping[str, Any]) -> tuple[str, str]:
    return str(room["job"]), str(room["step"])
