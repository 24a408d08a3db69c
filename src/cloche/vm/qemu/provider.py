"""The qemu provider: templates resumed into VMs, each made its own before anything runs in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING

from cloche.errors import GuestError, ProviderError
from cloche.tasks import finish
from cloche.units import format_size
from cloche.vm.hostgroups import HostGroups
from cloche.vm.inbox import Inbox
from cloche.vm.leases import Lease
from cloche.vm.provider import Allocation, VmSpec, new_vm_id
from cloche.vm.qemu import machine
from cloche.vm.qemu.accelerator import PROBE_DEADLINE, AcceleratorProbe, qemu_binary
from cloche.vm.qemu.process import QemuProcess, open_state
from cloche.vm.qemu.snapshot import give_layers, load, take, template_of
from cloche.vm.qemu.template import TemplateStore, first_word, make_sparse
from cloche.vm.qemu.vm import QemuVm, copy_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cloche.guest.protocol import Header
    from cloche.image.model import Image
    from cloche.image.store import ImageStore
    from cloche.vm.provider import Vm
    from cloche.vm.qemu.template import Template
    from cloche.vm.snapshot import VmSnapshot

_RESUME_DEADLINE = 60.0
_ENTROPY = 64
_VCPUS_EACH = 8
"""vCPUs for each processor of the host at most: more only wait for one another."""
_SPACE_HINT = "cloche doctor shows the space that is left, cloche gc frees what nothing uses"
_TCG_NOTE = (
    "KVM is not usable here, so VMs run in software emulation: CPU-bound steps take about 12 times as long"
)


class QemuProvider:
    """Makes VMs with QEMU.

    ``data`` holds templates and what the KVM probe found, ``vms`` a folder for each live VM. ``note`` hears
    what takes long. ``accelerator`` skips the probe; ``templates=False`` boots every VM cold (for comparison).
    """

    name = "qemu"

    def __init__(
        self,
        images: ImageStore,
        data: Path,
        vms: Path,
        *,
        note: Callable[[str], None] = lambda _text: None,
        accelerator: machine.Accelerator | None = None,
        templates: bool = True,
    ) -> None:
        self._images = images
        self._vms = vms
        self._note = note
        self._binary = qemu_binary("qemu-system-x86_64")
        self._templates = TemplateStore(data / "templates", self._binary)
        self._probe = AcceleratorProbe(data / "kvm.json")
        self._accelerator = accelerator
        self._use_templates = templates
        self._choosing = asyncio.Lock()
        self._groups = HostGroups()
        self._live: dict[str, QemuVm] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Emulation, where it is one."""
        return () if self._accelerator == "kvm" else (_TCG_NOTE,)

    async def allocate(self, spec: VmSpec) -> Allocation:
        """See VmProvider."""
        started = time.perf_counter()
        _check_fits(spec)
        accelerator = await self.choose_accelerator(spec)
        system, job = self._resolve(spec)
        shape = machine.Shape(accelerator, spec.cpus, spec.memory, spec.disk)
        with _files_made():
            template = await self._templates.get(system, job, shape, self._note)
            vm = self._place(template, spec)
            await self._bring_up(vm)
        self._live[vm.id] = vm
        return Allocation(vm, time.perf_counter() - started, "restored" if self._use_templates else "booted")

    async def reset(self, vm: Vm) -> None:
        """See VmProvider: another QEMU, on the template, takes the place of the one that ran."""
        await self._renew(self._ours(vm), None)

    async def snapshot(self, vm: Vm, folder: Path, number: int | None = None) -> VmSnapshot:
        """See SnapshotProvider."""
        ours = self._ours(vm)
        return await take(ours, folder, ours.guest.pause() if number is None else number)

    async def restore(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """See SnapshotProvider: another QEMU, made of the snapshot, takes the place of the one that ran."""
        await self._renew(self._ours(vm), snapshot)

    async def resume(self, snapshot: VmSnapshot) -> Allocation:
        """See SnapshotProvider."""
        started = time.perf_counter()
        with _files_made():
            vm = self._place(template_of(snapshot), snapshot.spec, snapshot.vm_id)
            await self._bring_up(vm, snapshot)
        self._live[vm.id] = vm
        return Allocation(vm, time.perf_counter() - started, "restored")

    def _ours(self, vm: Vm) -> QemuVm:
        if vm.id not in self._live:
            raise ProviderError(f"there is no VM {vm.id} of this provider")
        return self._live[vm.id]

    async def _renew(self, vm: QemuVm, snapshot: VmSnapshot | None) -> None:
        try:
            with _files_made():
                try:
                    await finish(vm.stop())
                    await asyncio.to_thread(vm.lease.empty)
                except BaseException as error:
                    raise await _undo(vm, error) from error
                await self._bring_up(vm, snapshot)
        except BaseException:
            del self._live[vm.id]
            raise

    async def choose_accelerator(self, spec: VmSpec) -> machine.Accelerator:
        """``kvm`` if a guest with this image really boots under it here, else ``tcg``; found out once."""
        async with self._choosing:
            if self._accelerator is None:
                self._accelerator = await self._probe.choose(self._binary, lambda: self._kvm_boots(spec))
            return self._accelerator

    def _resolve(self, spec: VmSpec) -> tuple[Image, Image]:
        return self._images.resolve("system", "system"), self._images.resolve(spec.image, "job")

    async def release(self, vm: Vm) -> None:
        """See VmProvider."""
        ours = self._live.pop(vm.id, None)
        if ours is not None:
            await finish(ours.destroy())

    async def close(self) -> None:
        """See VmProvider."""
        for vm in list(self._live.values()):
            await self.release(vm)

    # --- making a VM

    def _place(self, template: Template, spec: VmSpec, wanted: str | None = None) -> QemuVm:
        """Make a VM that has nothing but its folder, of the id ``wanted`` unless another has it."""
        with contextlib.ExitStack() as resources:
            resources.enter_context(template.system.hold())
            resources.enter_context(template.job.hold())
            lease = self._lease(wanted)
            resources.callback(lease.drop)
            return QemuVm(template, spec, lease, resources.pop_all())

    def _lease(self, wanted: str | None) -> Lease:
        if wanted is not None:
            with contextlib.suppress(FileExistsError):
                return Lease.take(self._vms, wanted)
        return Lease.take(self._vms, new_vm_id())

    async def _bring_up(self, vm: QemuVm, snapshot: VmSnapshot | None = None) -> None:
        """Start the VM's QEMU, until its guest is its own. What it had is given back when that fails."""
        try:
            if snapshot is not None:
                await self._rewind(vm, snapshot)
            else:
                await (self._resume(vm) if self._use_templates else self._boot(vm))
        except BaseException as error:
            raise await _undo(vm, error) from error

    async def _resume(self, vm: QemuVm) -> None:
        state = open_state(str(vm.template.state), os.O_RDONLY)
        try:
            vm.run(await self._start(vm, incoming=True))
            await vm.process.migrate("migrate-incoming", state)
        finally:
            os.close(state)
        await vm.process.execute("cont")
        await vm.guest.connect(_RESUME_DEADLINE)
        await _identify(vm, vm.template.hello)

    async def _rewind(self, vm: QemuVm, snapshot: VmSnapshot) -> None:
        vm.layers = await asyncio.to_thread(give_layers, snapshot, vm.lease.folder)
        vm.run(await self._start(vm, incoming=True, bare_state=True))
        await load(vm.process, snapshot, vm.template)
        await vm.process.execute("cont")
        vm.machine_id = snapshot.machine_id
        await vm.guest.wake(
            snapshot.info,
            snapshot.number,
            hostname=vm.id,
            machine_id=snapshot.machine_id,
            entropy=secrets.token_bytes(_ENTROPY),
        )

    async def _boot(self, vm: QemuVm) -> None:
        vm.run(await self._start(vm, incoming=False))
        await _identify(vm, await first_word(vm.process))

    async def _start(self, vm: QemuVm, *, incoming: bool, bare_state: bool = False) -> QemuProcess:
        template = vm.template
        files = _make_files(vm.lease.folder, template, incoming=incoming)
        shape = template.shape
        group = self._groups.make(
            vm.id, cpus=shape.cpus, memory=shape.memory, emulated=shape.accelerator == "tcg"
        )
        return await QemuProcess.start(
            lambda qmp, agent, console: machine.command(
                self._binary,
                template.shape,
                template.boot,
                machine.Wiring(
                    memory=files["memory"], private=True, disk=files["disk"], inbox=files["inbox"],
                    network=vm.spec.network, qmp=qmp, agent=agent, console=console, incoming=incoming,
                    layers=(template.disk, *vm.layers), bare_state=bare_state,
                ),
            ),
            Inbox(files["inbox"]),
            group,
        )  # fmt: skip

    async def _kvm_boots(self, spec: VmSpec) -> bool:
        """Boot a real guest under KVM and see whether it answers."""
        system, job = self._resolve(spec)
        self._note(f"checking whether KVM runs a guest here (at most {PROBE_DEADLINE:g} s, once)")
        shape = machine.Shape("kvm", spec.cpus, spec.memory, spec.disk)
        return await self._templates.answers(system, job, shape, PROBE_DEADLINE)


def _check_fits(spec: VmSpec) -> None:
    """Refuse what this host cannot give: such a guest would come up in minutes, or never."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if spec.memory > memory:
        raise ProviderError(
            f"the VM is to have {format_size(spec.memory)} of memory, this host has {format_size(memory)}",
            hint="--memory, or [vm] memory",
        )
    most = _VCPUS_EACH * (os.cpu_count() or 1)
    if spec.cpus > most:
        raise ProviderError(
            f"the VM is to have {spec.cpus} vCPUs, this host has {os.cpu_count()} processors",
            hint=f"--cpus, or [vm] cpus: {most} at most",
        )


@contextlib.contextmanager
def _files_made() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProviderError(f"the VM's files could not be made: {error}", hint=_SPACE_HINT) from error


def _make_files(folder: Path, template: Template, *, incoming: bool) -> dict[str, Path]:
    """The files of a VM's own; a resumed one shares the template's memory, copy-on-write."""
    files = {"disk": folder / "disk.qcow2", "inbox": folder / "inbox", "memory": template.memory}
    copy_private(template.overlay, files["disk"])
    make_sparse(files["inbox"], template.shape.disk)
    if not incoming:
        files["memory"] = folder / "memory"
        make_sparse(files["memory"], template.shape.memory)
    return files


async def _identify(vm: QemuVm, hello: Header) -> None:
    """Make the copy its own, before anything runs in it: clock, entropy, hostname, machine id, boot id."""
    vm.machine_id = secrets.token_hex(16)
    await vm.guest.adopt(
        hello,
        hostname=vm.id,
        machine_id=vm.machine_id,
        entropy=secrets.token_bytes(_ENTROPY),
        env=vm.template.job.env,
    )


async def _undo(vm: QemuVm, error: BaseException) -> BaseException:
    """Give back a VM that did not come up; what to raise instead of ``error``."""
    words = vm.last_words
    await finish(vm.destroy())
    if isinstance(error, GuestError):
        return ProviderError(
            f"the VM did not come up: {error.message}\n{words}".rstrip(), hint="cloche doctor"
        )
    return error
