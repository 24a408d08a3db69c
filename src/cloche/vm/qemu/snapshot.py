"""Snapshots of QEMU's VMs: the state of the devices, the pages that left the template, a layer of the disk.

Besides those a snapshot has links to all that a VM of it needs, so that it is whole for as long as it is kept,
whatever becomes of its template and images.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from typing import TYPE_CHECKING

from cloche.errors import ProviderError
from cloche.image.model import Image
from cloche.vm.qemu import machine, pages
from cloche.vm.qemu.template import Template
from cloche.vm.snapshot import VmSnapshot, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any, BinaryIO

    from cloche.vm.qemu.process import QemuProcess
    from cloche.vm.qemu.vm import QemuVm

_STATE, _PAGES = "state", "pages"
_HELD = 256 * 1024 * 1024
"""Bytes of pages that are copied in memory at most, to be written when the VM goes on."""
_TEMPLATE_FILES = ("memory", "disk.qcow2", "overlay.qcow2", "template.json")


async def take(vm: QemuVm, folder: Path, number: int) -> VmSnapshot:
    """See SnapshotProvider.snapshot."""
    return await whole(folder, lambda: _take(vm, folder, number))


async def _take(vm: QemuVm, folder: Path, number: int) -> VmSnapshot:
    made_by = await qemu_version(vm.process)
    (folder / _STATE).touch(mode=0o600)
    layer = await vm.add_layer()
    stopped = time.perf_counter()
    await vm.process.execute("stop")
    try:
        await vm.process.execute("xen-save-devices-state", {"filename": str(folder / _STATE)})
        await vm.push_layer(layer)
        held = await asyncio.to_thread(_hold_pages, vm, folder / _PAGES)
    finally:
        await vm.process.execute("cont")
    paused = time.perf_counter() - stopped
    if held is not None:
        await asyncio.to_thread(_write_pages, held, folder / _PAGES)
    await asyncio.to_thread(_link_all, vm, folder)
    snapshot = VmSnapshot(
        folder=folder,
        provider=vm.provider,
        vm_id=vm.id,
        spec=vm.spec,
        info=vm.info,
        machine_id=vm.machine_id,
        number=number,
        made_by=made_by,
        size=_own_size([folder / _STATE, folder / _PAGES, vm.layers[-1]]),
        paused=paused,
        extra=_described(vm),
    )
    snapshot.write()
    return snapshot


async def qemu_version(process: QemuProcess) -> str:
    """What QEMU says it is."""
    answer = await process.execute("query-version")
    told = answer if isinstance(answer, dict) else {}
    numbers = told.get("qemu", {})
    version = ".".join(str(numbers.get(part)) for part in ("major", "minor", "micro"))
    return f"QEMU {version} {told.get('package', '')}".strip()


def _hold_pages(vm: QemuVm, path: Path) -> pages.Held | None:
    """Copy the VM's pages; those that are too many are written at once, and ``None`` returned."""
    with pages.Memory(vm.process.pid, vm.template.memory) as memory:
        held = pages.hold(memory, _HELD)
        if held is None:
            with _private(path) as file:
                pages.save(memory, file)
        return held


def _write_pages(held: pages.Held, path: Path) -> None:
    with _private(path) as file:
        held.write(file)


def _private(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb")


def _link_all(vm: QemuVm, folder: Path) -> None:
    """Links to the template, the images and the layers of the disk. OSError across file systems."""
    _link((vm.template.folder / name for name in _TEMPLATE_FILES), folder / "template")
    for name, image in (("system", vm.template.system), ("job", vm.template.job)):
        _link([image.path / "manifest.json", image.path / f"{name}.erofs"], folder / name)
    (folder / "layers").mkdir(mode=0o700)
    _link_layers(vm.layers, folder / "layers")


def _link(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for path in files:
        (folder / path.name).hardlink_to(path)


def _link_layers(layers: Iterable[Path], folder: Path) -> list[Path]:
    """VMs and snapshots may be on file systems of their own; layers are small enough to be copied then."""
    links = []
    for number, path in enumerate(layers):
        link = folder / f"layer-{number}.qcow2"
        try:
            link.hardlink_to(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copyfile(path, link)
        links.append(link)
    return links


def _described(vm: QemuVm) -> Mapping[str, Any]:
    template = vm.template
    return {
        "shape": {name: getattr(template.shape, name) for name in ("accelerator", "cpus", "memory", "disk")},
        "hello": dict(template.hello),
        "system": {"digest": template.system.digest, "manifest": dict(template.system.manifest)},
        "job": {"digest": template.job.digest, "manifest": dict(template.job.manifest)},
        "layers": len(vm.layers),
    }


def _own_size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_blocks * 512 for path in files)


def template_of(snapshot: VmSnapshot) -> Template:
    """The template of a snapshot's VMs: its own links. ProviderError when they are not all there."""
    extra = snapshot.extra
    try:
        return Template(
            snapshot.folder / "template",
            Image(
                "system", extra["system"]["digest"], snapshot.folder / "system", extra["system"]["manifest"]
            ),
            Image("job", extra["job"]["digest"], snapshot.folder / "job", extra["job"]["manifest"]),
            machine.Shape(**extra["shape"]),
            extra["hello"],
        )
    except (KeyError, TypeError) as wrong:
        raise ProviderError(f"the snapshot in {snapshot.folder} is damaged: {wrong}") from wrong


def give_layers(snapshot: VmSnapshot, folder: Path) -> list[Path]:
    """Put the layers of a snapshot's disk into a VM's folder, where they stay when the snapshot goes. OSError."""
    names = [f"layer-{number}.qcow2" for number in range(snapshot.extra["layers"])]
    return _link_layers((snapshot.folder / "layers" / name for name in names), folder)


async def load(process: QemuProcess, snapshot: VmSnapshot, template: Template) -> None:
    """Make a process that has not run yet what the snapshot's was. ProviderError."""
    running = await qemu_version(process)
    if running != snapshot.made_by:
        raise ProviderError(
            f"the snapshot was made by {snapshot.made_by}, this is {running}", hint="run the workflow anew"
        )
    await asyncio.to_thread(_load_pages, process, snapshot, template)
    state = os.open(snapshot.folder / _STATE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await process.load_devices(state)
    finally:
        os.close(state)


def _load_pages(process: QemuProcess, snapshot: VmSnapshot, template: Template) -> None:
    with (snapshot.folder / _PAGES).open("rb") as file, pages.Memory(process.pid, template.memory) as memory:
        pages.load(memory, file)
