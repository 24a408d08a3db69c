"""``cloche verify``: evidence that one workflow gets one VM, measured on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloche.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_WORKFLOW_FAILED, ClocheError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from cloche.config import Settings
    from cloche.verify.report import Report
    from cloche.verify.stage import Plan, Progress
    from cloche.vm.provider import Network, VmProvider

_FORMS = ("md", "json", "html")
_SUFFIXES = {".json": "json", ".html": "html", ".htm": "html"}


@click.command("verify")
@click.option("--vm", "provider", help="What makes the VMs: auto (default), qemu, sandbox, fake or another.")
@click.option(
    "--workflows",
    type=click.IntRange(2, 64),
    default=3,
    show_default=True,
    help="How many run at once in T2.",
)
@click.option("--output", "form", type=click.Choice(_FORMS), help="Write the report, in this form.")
@click.option(
    "--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there."
)
def verify(*, provider: str | None, workflows: int, form: str | None, path: Path | None) -> None:
    """Show on this machine that every workflow gets one VM, its own, clean, and gives it back.

    Runs four scenarios and judges by what the provider was asked, what the events tell and what steps read inside
    their guests. Ends with 0 (all requirements hold), 1 (one does not), 3 (no VM could be had) or 130 (interrupted).
    """
    from cloche.config import load_settings

    settings = load_settings(flags={"vm.provider": provider})
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write the report to {path}: there is no such folder")
    onto_stdout = form is not None and path is None
    report = _verified(settings, workflows, sys.stderr if onto_stdout else sys.stdout)
    if report is None:
        sys.exit(EXIT_INTERRUPTED)
    if path is not None:
        _write(path, _rendered(report, form or _SUFFIXES.get(path.suffix, "md")))
    elif form is not None:
        click.echo(_rendered(report, form), nl=False)
    sys.exit(EXIT_SUCCESS if report.passed else EXIT_WORKFLOW_FAILED)


def _verified(settings: Settings, workflows: int, stream: TextIO) -> Report | None:
    """Carry the verification out and show it; ``None`` when it was interrupted."""
    import asyncio

    from cloche.cli.compose import make_provider
    from cloche.verify.console import VerifyConsole

    console = VerifyConsole(stream)

    def provider() -> VmProvider:
        return make_provider(settings.vm.provider, console.note)

    with console:
        try:
            report = asyncio.run(_run(provider, _plan(settings, workflows), console.tell))
        except asyncio.CancelledError:
            return None
    console.show(report)
    return report


async def _run(provider: Callable[[], VmProvider], plan: Plan, tell: Callable[[Progress], None]) -> Report:
    """Verify, until a signal says to stop: then everything is given back first."""
    import asyncio
    import signal

    from cloche.verify import verify as carry_out

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
    return await carry_out(provider, plan, tell)


def _plan(settings: Settings, workflows: int) -> Plan:
    from typing import cast

    from cloche.units import format_size
    from cloche.verify import Plan
    from cloche.verify.machine import machine_facts, program_version
    from cloche.vm.provider import VmSpec

    facts = machine_facts()
    if settings.vm.provider in {"auto", "qemu"}:
        facts["QEMU"] = program_version("qemu-system-x86_64")
    vm = settings.vm
    network = cast("Network", vm.network)
    spec = VmSpec(cpus=vm.cpus, memory=vm.memory, disk=vm.disk, network=network)
    facts["each VM"] = f"{vm.cpus} vCPUs, {format_size(vm.memory)} of memory, network {vm.network}"
    return Plan(workflows, spec, settings.image_for, facts)


def _rendered(report: Report, form: str) -> str:
    if form == "json":
        from cloche.verify.jsonform import to_json as render
    elif form == "html":
        from cloche.verify.page import to_html as render
    else:
        from cloche.verify.markdown import to_markdown as render
    return render(report).encode("utf-8", "replace").decode()  # a provider's words may be no text


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ClocheError(
            f"cannot write the report to {path}: {error.strerror}",
            hint="--report names a file in a folder of yours",
        ) from None
