"""``cloche gc``: clear what killed runs left, and images that nothing uses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.session.collect import Leftovers


@click.command("gc")
def gc() -> None:
    """Clear what killed runs left, runs kept long enough, images that nothing names, templates not used for two weeks.

    Runs that are alive are not disturbed. Every `cloche run` does the first part by itself.
    """
    from cloche.cli.running import open_store
    from cloche.cli.visiting import clear_doors
    from cloche.config import data_dir, load_settings, sessions_dir, vms_dir
    from cloche.execution.checkout import remove_stale
    from cloche.image.store import ImageStore
    from cloche.session import SessionRegistry
    from cloche.session.collect import collect_leftovers
    from cloche.vm.qemu.template import collect_templates

    remove_stale()
    clear_doors()
    left = asyncio.run(collect_leftovers(SessionRegistry(sessions_dir()), vms_dir()))
    store = ImageStore(data_dir())
    expired = open_store(load_settings()).expire()
    removed = [*store.gc()]
    removed += collect_templates(data_dir() / "templates", {image.digest for image in store.images()})
    lines = [*_told(left), *expired, *(f"removed {path}" for path in removed)]
    click.echo("\n".join(lines) or "nothing to clear")
    problems = [vm for vm in left.vms if vm.problem]
    for vm in problems:
        click.echo(f"cannot clear VM {vm.vm_id}: {vm.problem}", err=True)
    if problems:
        raise SystemExit(1)


def _told(left: Leftovers) -> Iterator[str]:
    for session in left.sessions:
        yield f"cleared session {session.id} of workflow {session.workflow!r}: process {session.pid} is gone"
    for vm in left.vms:
        if vm.killed is not None:
            yield f"ended process {vm.killed} of VM {vm.vm_id}"
        if vm.problem is None:
            yield f"removed VM {vm.vm_id}"
