"""QEMU's command line for one of our machines: the same for a template and for every VM resumed from it."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cloche.records import record
from cloche.vm.provider import MIB

if TYPE_CHECKING:
    from cloche.vm.provider import Network

Accelerator = Literal["kvm", "tcg"]

SCRATCH = "scratch"
"""The name of the disk that the guest writes to."""
DISK = "disk.qcow2"
"""The file of that disk in a VM's folder."""
_MICROVM = "microvm,acpi=on,x-option-roms=off,rtc=on,usb=off,memory-backend=ram"
_KERNEL_PARAMETERS = (
    "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t cloche.system=/dev/vda "
    # A guest lives minutes and serves one run: what watches for trouble over days only costs here.
    "nowatchdog audit=0 random.trust_cpu=off rcupdate.rcu_cpu_stall_suppress=1"
)


@record
class Shape:
    """What two VMs must have in common to share a template, besides image and agent. Sizes in bytes."""

    accelerator: Accelerator
    cpus: int
    memory: int
    disk: int


@record
class Boot:
    """The files a machine starts from."""

    kernel: Path
    initramfs: Path
    system: Path
    job: Path


@record
class Wiring:
    """What differs between two machines of one shape: files and inherited descriptors.

    ``private`` memory is a copy-on-write view of the file; shared memory is written through to it. ``layers`` are
    what the disk rests on, the lowest first. ``bare_state``: the state to come has devices only, and no preface.
    """

    memory: Path
    private: bool
    disk: Path
    inbox: Path
    network: Network
    qmp: int
    agent: int
    console: int
    incoming: bool
    layers: tuple[Path, ...] = ()
    bare_state: bool = False


def command(binary: str, shape: Shape, boot: Boot, wiring: Wiring) -> list[str]:
    """The whole command line. Device order and addresses are part of a template: see ``fingerprint``."""
    return [
        binary,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *_machine(shape, wiring),
        *(() if wiring.incoming else _boot(shape, boot)),
        *_channels(wiring),
        # No bus is named: QEMU's own choice, from the highest down, avoids the first ones, whose interrupts the
        # guest never sees. The guest names disks in this order: vda to vdd.
        *_disk("system", _raw(boot.system)),
        *_disk("job", _raw(boot.job)),
        *_disk(SCRATCH, _qcow2(wiring.disk, wiring.layers)),
        *_disk("inbox", _raw(wiring.inbox)),
        *_network(wiring.network),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *("-device", "virtio-rng-device,rng=rng0"),
        *(("-incoming", "defer") if wiring.incoming else ()),
        *(("-global", "migration.send-configuration=off") if wiring.bare_state else ()),
    ]


def fingerprint(shape: Shape) -> str:
    """What of the command line a saved device state depends on, as text for a digest."""
    no = Path()
    wiring = Wiring(
        memory=no, private=False, disk=no, inbox=no, network="none", qmp=0, agent=0, console=0, incoming=False
    )
    return json.dumps(command("", shape, Boot(no, no, no, no), wiring))


def _kernel_parameters(shape: Shape) -> str:
    """The guest's command line.

    A microvm has nothing but the PIT to measure its processor's clock by. Under emulation on a busy machine
    that fails, and then the guest waits for ticks that never come. So it is told the rate: the host's own.
    """
    khz = host_tsc_khz() if shape.accelerator == "tcg" else None
    return f"{_KERNEL_PARAMETERS} tsc=reliable tsc_early_khz={khz}" if khz else _KERNEL_PARAMETERS


@functools.cache
def host_tsc_khz() -> int | None:
    """The rate of the host's time stamp counter, which Linux on x86 shows as half its BogoMIPS."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "bogomips":
            return round(float(value) * 500)
    return None


def _boot(shape: Shape, boot: Boot) -> list[str]:
    """What only a machine that boots needs: QEMU would read it into memory of its own, 13 MB for each VM."""
    files = ["-kernel", str(boot.kernel), "-initrd", str(boot.initramfs)]
    return [*files, "-append", _kernel_parameters(shape)]


def _machine(shape: Shape, wiring: Wiring) -> list[str]:
    memory = {
        "qom-type": "memory-backend-file",
        "id": "ram",
        "size": shape.memory,
        "mem-path": str(wiring.memory),
        "share": not wiring.private,
    }
    return [
        *("-machine", f"{_MICROVM},suppress-vmdesc=on" if wiring.bare_state else _MICROVM),
        *("-accel", "kvm" if shape.accelerator == "kvm" else "tcg,thread=multi"),
        *("-cpu", "host,migratable=off" if shape.accelerator == "kvm" else "max"),
        *("-smp", str(shape.cpus), "-m", f"{shape.memory // MIB}M"),
        *("-object", json.dumps(memory)),
    ]


def _channels(wiring: Wiring) -> list[str]:
    return [
        *("-chardev", f"socket,id=qmp,fd={wiring.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=console,fd={wiring.console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,fd={wiring.agent}"),
        *("-device", "virtio-serial-device,max_ports=2"),
        *("-device", "virtserialport,chardev=agent,name=cloche.agent,nr=1"),
    ]


def _disk(name: str, blockdev: dict[str, object]) -> list[str]:
    return [
        *("-blockdev", json.dumps({"node-name": name, **blockdev})),
        *("-device", f"virtio-blk-device,drive={name},serial={name}"),
    ]


def _raw(path: Path) -> dict[str, object]:
    return {"driver": "raw", "read-only": True, "file": {"driver": "file", "filename": str(path)}}


def layer(name: str, path: Path) -> dict[str, object]:
    """An empty layer of a disk, for ``blockdev-add``: what it will rest on is told when it is put there."""
    return {"node-name": name, **_qcow2(path), "backing": None}


def _qcow2(path: Path, layers: tuple[Path, ...] = ()) -> dict[str, object]:
    # The disk lives no longer than the VM: nothing is ever flushed for a crash that would take both.
    cache = {"direct": False, "no-flush": True}
    file = {"driver": "file", "filename": str(path), "cache": cache, "discard": "unmap"}
    disk: dict[str, object] = {"driver": "qcow2", "file": file, "cache": cache, "discard": "unmap"}
    if layers:
        disk["backing"] = _base(layers)
    return disk


def _base(layers: tuple[Path, ...]) -> dict[str, object]:
    """Layers that are only read. What is below each is told here: the names in the files may be of others."""
    *lower, top = layers
    base: dict[str, object] = {
        "driver": "qcow2",
        "read-only": True,
        "file": {"driver": "file", "filename": str(top)},
    }
    return {**base, "backing": _base(tuple(lower)) if lower else None}


def _network(network: Network) -> list[str]:
    # Without a way out the card stays, so that both kinds of VM share a template; it just leads nowhere.
    backend = "user,id=net0,ipv6=off" if network == "user" else "hubport,id=net0,hubid=0"
    # A copy has no neighbours to tell that it moved here, which would be the first thing each one did.
    return ["-netdev", backend, "-device", "virtio-net-device,netdev=net0,guest_announce=off"]


def digest(*parts: str) -> str:
    """A short name for a combination of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
