"""Snapshots: a VM as it was at a moment, in a folder of its own; which providers can take them.

What a snapshot holds is whatever the guest's memory and disk held, secrets too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cloche.errors import ProviderError
from cloche.records import record
from cloche.tasks import finish
from cloche.vm.guest import GuestInfo
from cloche.vm.provider import VmSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from cloche.vm.provider import Allocation, Vm

VERSION = 1
_FILE = "snapshot.json"
_MAX_FILE = 4 * 1024 * 1024


@record
class VmSnapshot:
    """A VM as it was at a moment.

    ``size`` is bytes on disk that nothing else shares, ``paused`` the seconds that the VM stood still for it.
    ``number`` is the last one used on the guest's channel, ``machine_id`` the guest's; ``made_by`` says what can
    resume it, in the provider's words; ``extra`` is the provider's own. ``note`` is what the user should know that it
    does not hold.
    """

    folder: Path
    provider: str
    vm_id: str
    spec: VmSpec
    info: GuestInfo
    machine_id: str
    number: int
    made_by: str
    size: int
    paused: float
    extra: Mapping[str, Any]
    note: str = ""

    @property
    def boot_id(self) -> str:
        """The guest's boot id: that of every VM made from it, too."""
        return self.info.boot_id

    def write(self) -> None:
        """Write what ``load`` reads; until then the folder is no snapshot. OSError."""
        told = {"version": VERSION, **dataclasses.asdict(self)}
        del told["folder"]
        partial = self.folder / f"{_FILE}.new"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(told, file)
        partial.replace(self.folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> VmSnapshot:
        """Read a snapshot. ProviderError when there is none, or one of another version of Cloche."""
        try:
            with (folder / _FILE).open("rb") as file:
                told = json.loads(file.read(_MAX_FILE))
            version = told.pop("version")
            if version != VERSION:
                raise ProviderError(
                    f"the snapshot in {folder} is of format {version}, this Cloche reads format {VERSION}"
                )
            spec, info = VmSpec(**told.pop("spec")), GuestInfo(**told.pop("info"))
            return cls(folder=folder, spec=spec, info=info, **told)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise ProviderError(f"there is no whole snapshot in {folder}: {wrong}") from wrong


@runtime_checkable
class SnapshotProvider(Protocol):
    """What a provider can do that can take snapshots.

    At the moment of a snapshot nothing may be under way with the guest: no program that is waited for, no request.
    Job roots and what runs in the background in them are part of it.
    """

    async def snapshot(self, vm: Vm, folder: Path, number: int | None = None) -> VmSnapshot:
        """Save what the VM is now into ``folder``, which must not exist; the VM goes on.

        ``number`` is the last one used on the guest's channel where another process speaks to it. ProviderError
        when that cannot be done: then nothing is left of the folder, and the VM goes on all the same.
        """

    async def restore(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """Put a VM back to a snapshot of its own; ``guest`` is another client afterwards, the boot id the same.

        ProviderError when that cannot be done; the VM has then been ended.
        """

    async def resume(self, snapshot: VmSnapshot) -> Allocation:
        """Make a VM of a snapshot: with its id where that is free, with its boot id always. ProviderError."""


async def whole(folder: Path, take: Callable[[], Awaitable[VmSnapshot]]) -> VmSnapshot:
    """Make ``folder`` and take a snapshot in it, to its end even when the caller is cancelled.

    ProviderError when it cannot be written, or the folder is there. Unless all went well nothing is left of it.
    """
    try:
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
        try:
            return await finish(take())
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
    except OSError as error:
        raise ProviderError(
            f"the snapshot could not be written to {folder}: {error.strerror or error}",
            hint="cloche doctor shows the space that is left",
        ) from error


def snapshots_of(provider: object) -> SnapshotProvider:
    """Return what takes a provider's snapshots. ProviderError for one that takes none."""
    if isinstance(provider, SnapshotProvider):
        return provider
    name = getattr(provider, "name", "this")
    raise ProviderError(f"the {name} provider takes no snapshots", hint="--vm qemu, sandbox and fake do")
