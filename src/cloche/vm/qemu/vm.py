"""A VM of the qemu provider: its QEMU, its lease (the folder with its disk), its guest."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from cloche.errors import ProviderError
from cloche.vm.qemu import machine

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from cloche.vm.channel import AgentClient
    from cloche.vm.guest import GuestInfo
    from cloche.vm.leases import Lease
    from cloche.vm.provider import VmSpec
    from cloche.vm.qemu.process import QemuProcess
    from cloche.vm.qemu.template import Template


def copy_private(source: Path, target: Path) -> None:
    """Copy a file for this user's eyes alone. OSError."""
    target.touch(mode=0o600)
    shutil.copyfile(source, target)


class QemuVm:
    """A VM of ours.

    Its disk is the template's, on that ``layers`` that nobody writes to any more, the lowest first, and on those
    the one that the guest writes to.
    """

    provider = "qemu"

    def __init__(
        self, template: Template, spec: VmSpec, lease: Lease, resources: contextlib.ExitStack
    ) -> None:
        """``resources`` gives back what the VM holds besides QEMU: its lease, its images."""
        self.id = lease.folder.name
        self.template = template
        self.spec = spec
        self.lease = lease
        self.machine_id = ""
        self.layers: list[Path] = []
        self._resources = resources
        self._process: QemuProcess | None = None
        self._top = (machine.SCRATCH, lease.folder / machine.DISK)
        self._added = 0

    @property
    def process(self) -> QemuProcess:
        """Its QEMU, another one after each reset. ProviderError before there is one."""
        if self._process is None:
            raise ProviderError(f"VM {self.id} has not been started")
        return self._process

    @property
    def guest(self) -> AgentClient:
        """The agent's client."""
        return self.process.agent

    @property
    def info(self) -> GuestInfo:
        """What the guest said of itself."""
        return self.guest.info

    @property
    def last_words(self) -> str:
        """What QEMU and the guest's console said last."""
        return self._process.last_words if self._process else ""

    def run(self, process: QemuProcess) -> None:
        """Take this QEMU for its own; it is killed with us, and with whoever collects what we left."""
        self._process = process
        self.lease.record_process(process.pid)

    async def add_layer(self) -> tuple[str, Path]:
        """Have an empty layer ready for the disk: its name in QEMU, and its file. OSError, ProviderError."""
        self._added += 1
        name = f"{machine.SCRATCH}{self._added}"
        path = self.lease.folder / f"disk-{self._added}.qcow2"
        copy_private(self.template.overlay, path)
        await self.process.execute("blockdev-add", machine.layer(name, path))
        return name, path

    async def push_layer(self, layer: tuple[str, Path]) -> None:
        """From now on the guest writes to this layer, which ``add_layer`` made, and to the ones below no more."""
        name, path = self._top
        await self.process.execute("blockdev-snapshot", {"node": name, "overlay": layer[0]})
        self.layers.append(path)
        self._top = layer

    async def stop(self) -> None:
        """End QEMU; it is gone when this returns, and its disk is to be made anew."""
        if self._process is not None:
            await self._process.kill()
        self.layers = []
        self._top = (machine.SCRATCH, self.lease.folder / machine.DISK)
        self._added = 0

    async def destroy(self) -> None:
        """End QEMU, remove the folder."""
        await self.stop()
        await asyncio.to_thread(self._resources.close)
