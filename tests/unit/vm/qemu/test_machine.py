from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.vm.provider import GIB
from cloche.vm.qemu import machine
from cloche.vm.qemu.machine import Boot, Shape, Wiring

if TYPE_CHECKING:
    from cloche.vm.provider import Network

SHAPE = Shape("tcg", 2, 2 * GIB, 16 * GIB)
BOOT = Boot(Path("/i/vmlinuz"), Path("/t/initramfs"), Path("/i/system.erofs"), Path("/i/job, a=b.erofs"))
WIRING = Wiring(
    memory=Path("/t/memory"), private=True, disk=Path("/v/disk,1.qcow2"), inbox=Path("/v/inbox"),
    network="user", qmp=3, agent=4, console=5, incoming=True,
)  # fmt: skip


def command(shape: Shape = SHAPE, **wiring: object) -> list[str]:
    return machine.command("qemu", shape, BOOT, dataclasses.replace(WIRING, **wiring))  # type: ignore[arg-type] # by name, as given


def values(of: str, argv: list[str]) -> list[str]:
    return [value for option, value in itertools.pairwise(argv) if option == of]


def test_the_disks_come_in_the_order_that_the_guest_names_them() -> None:
    disks = [json.loads(value) for value in values("-blockdev", command())]
    assert [disk["node-name"] for disk in disks] == ["system", "job", "scratch", "inbox"]
    assert [disk.get("read-only", False) for disk in disks] == [True, True, False, True]
    devices = [value for value in values("-device", command()) if value.startswith("virtio-blk")]
    assert [value.partition("drive=")[2].partition(",")[0] for value in devices] == [
        "system", "job", "scratch", "inbox",
    ]  # fmt: skip


def test_paths_may_hold_anything() -> None:
    disks = [json.loads(value) for value in values("-blockdev", command())]
    assert disks[1]["file"]["filename"] == "/i/job, a=b.erofs"
    assert disks[2]["file"]["filename"] == "/v/disk,1.qcow2"
    (memory,) = (
        json.loads(value) for value in values("-object", command(memory=Path("/t/a,b"))) if "{" in value
    )
    assert memory["mem-path"] == "/t/a,b"


@pytest.mark.parametrize("private", [True, False])
def test_memory_is_a_private_view_of_the_template_or_the_template_itself(*, private: bool) -> None:
    (memory,) = (json.loads(value) for value in values("-object", command(private=private)) if "{" in value)
    assert (memory["size"], memory["share"]) == (2 * GIB, not private)


@pytest.mark.parametrize(("network", "backend"), [("user", "user,"), ("none", "hubport,")])
def test_networks(network: Network, backend: str) -> None:
    argv = command(network=network)
    assert values("-netdev", argv)[0].startswith(backend)
    assert any(value.startswith("virtio-net") for value in values("-device", argv))


def test_only_a_resumed_machine_waits_for_its_state() -> None:
    assert values("-incoming", command(incoming=True)) == ["defer"]
    assert "-incoming" not in command(incoming=False)


def test_only_a_machine_that_boots_holds_a_kernel_in_memory() -> None:
    assert values("-kernel", command(incoming=False)) == ["/i/vmlinuz"]
    assert values("-initrd", command(incoming=False)) == ["/t/initramfs"]
    assert not {"-kernel", "-initrd", "-append"} & set(command(incoming=True))


@pytest.mark.parametrize(("accelerator", "cpu"), [("kvm", "host"), ("tcg", "max")])
def test_accelerators(accelerator: machine.Accelerator, cpu: str) -> None:
    argv = command(dataclasses.replace(SHAPE, accelerator=accelerator))
    assert values("-accel", argv)[0].startswith(accelerator)
    assert values("-cpu", argv)[0].startswith(cpu)


def test_an_emulated_guest_is_told_the_rate_of_its_clock() -> None:
    (parameters,) = values("-append", command(incoming=False))
    khz = machine.host_tsc_khz()
    assert khz is None or f"tsc_early_khz={khz}" in parameters.split()
    (parameters,) = values("-append", command(dataclasses.replace(SHAPE, accelerator="kvm"), incoming=False))
    assert "tsc_early_khz" not in parameters


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(SHAPE, cpus=1),
        dataclasses.replace(SHAPE, memory=GIB),
        dataclasses.replace(SHAPE, accelerator="kvm"),
    ],
)
def test_machines_that_cannot_share_a_template_differ_in_their_fingerprint(other: Shape) -> None:
    assert machine.fingerprint(other) != machine.fingerprint(SHAPE)
    assert machine.fingerprint(dataclasses.replace(SHAPE)) == machine.fingerprint(SHAPE)


def test_digests_tell_where_one_part_ends() -> None:
    assert machine.digest("a", "bc") != machine.digest("ab", "c")
