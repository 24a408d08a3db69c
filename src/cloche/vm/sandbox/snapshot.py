"""Snapshots of sandboxes: the files of open job roots, and nothing that ran.

A sandbox has no memory to save: what runs in it are processes of the host's kernel. ``/run`` and ``/dev/shm`` are
memory too. The job image is told by its digest: a snapshot of an image that is gone can be made into no sandbox.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

from cloche.errors import ProviderError
from cloche.guest.jobs import LABEL
from cloche.records import record
from cloche.vm.sandbox import layers
from cloche.vm.snapshot import VmSnapshot, whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cloche.vm.sandbox.provider import SandboxVm

MADE_BY = "the sandbox"
NOTE = "a snapshot of a sandbox holds the files of its jobs: no processes, nothing of /run and /dev/shm"
_UPPER = "upper"
_MAX_LABEL = 4096
_MAX_ROOTS = 1024


@record
class KeptRoot:
    """A job root that was open: its name and hostname, and its files' archive below the snapshot's folder."""

    name: str
    hostname: str
    archive: str


async def take(vm: SandboxVm, folder: Path, number: int) -> VmSnapshot:
    """See SnapshotProvider.snapshot."""
    return await whole(folder, lambda: _take(vm, folder, number))


async def _take(vm: SandboxVm, folder: Path, number: int) -> VmSnapshot:
    kept = await asyncio.to_thread(_keep_roots, vm.lease.folder / "jobs", folder, vm.spec.disk)
    snapshot = VmSnapshot(
        folder=folder,
        provider=vm.provider,
        vm_id=vm.id,
        spec=vm.spec,
        info=vm.info,
        machine_id=vm.machine_id,
        number=number,
        made_by=MADE_BY,
        size=sum((folder / root.archive).stat().st_blocks * 512 for root in kept),
        paused=0.0,  # it is not stopped: what runs in the background is not kept anyhow
        extra={
            "image": vm.image.digest,
            "roots": [[root.name, root.hostname, root.archive] for root in kept],
        },
        note=NOTE,
    )
    snapshot.write()
    return snapshot


def _keep_roots(jobs: Path, folder: Path, most: int) -> list[KeptRoot]:
    kept: list[KeptRoot] = []
    for place in sorted(jobs.iterdir()):
        label = _label(place / LABEL)
        if label is None:
            continue  # a root that waits, or is on its way out
        archive = f"root-{len(kept)}.tar"
        layers.pack(place / _UPPER, folder / archive, most)
        kept.append(KeptRoot(*label, archive))
        if len(kept) > _MAX_ROOTS:
            raise ProviderError(f"the sandbox has more than {_MAX_ROOTS} job roots open")
    return kept


def _label(path: Path) -> tuple[str, str] | None:
    """Whose a root is, as the sandbox's agent wrote it, which is not to be trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            told = json.loads(file.read(_MAX_LABEL))
        return str(told["name"]), str(told["hostname"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as wrong:
        raise ProviderError(f"the sandbox does not tell what its job roots are: {wrong}") from wrong


def kept_roots(snapshot: VmSnapshot) -> list[KeptRoot]:
    """Return the roots that were open. ProviderError for a snapshot of something else, or half of one."""
    if snapshot.made_by != MADE_BY:
        raise ProviderError(
            f"the snapshot was made by {snapshot.made_by}, this is {MADE_BY}", hint="run the workflow anew"
        )
    try:
        roots = [KeptRoot(*told) for told in snapshot.extra["roots"]]
    except (KeyError, TypeError) as wrong:
        raise ProviderError(f"the snapshot in {snapshot.folder} is damaged: {wrong}") from wrong
    if missing := [root.archive for root in roots if not (snapshot.folder / root.archive).is_file()]:
        raise ProviderError(f"the snapshot in {snapshot.folder} is damaged: {missing[0]} is gone")
    return roots


def give_files(snapshot: VmSnapshot, roots: Sequence[KeptRoot], jobs: Path) -> None:
    """Put the roots' files where a new agent's roots will be: it numbers them from 1. OSError."""
    for number, root in enumerate(roots, 1):
        place = jobs / str(number)
        place.mkdir(mode=0o755)
        layers.unpack(snapshot.folder / root.archive, place / _UPPER)
        owner = (place / _UPPER).stat()
        os.chown(place, owner.st_uid, owner.st_gid)
