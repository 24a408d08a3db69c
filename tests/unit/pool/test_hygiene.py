from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from cloche.errors import GuestLost, GuestTimeout
from cloche.pool.hygiene import Hygiene, UncleanError, warm_up
from cloche.vm.fake import FakeProvider
from cloche.vm.guest import ExecSpec, Inspection, JobRootSpec
from cloche.vm.provider import VmSpec

from .places import in_virtual_time

NOW = 1_700_000_000.0
STATE = {"files": ("a", "b"), "processes": ("agent", "init", "init")}


class Guest:
    """Answers what it was told to."""

    def __init__(self, boot_id: str = "boot-1", **changes: object) -> None:
        found: dict[str, Any] = {
            "boot_id": boot_id, "hostname": "vm-1", "clock": NOW, "entropy": boot_id.encode(), "state": STATE,
        }  # fmt: skip
        self.found = Inspection(**{**found, **changes})
        self.info = dataclasses.make_dataclass("Info", ["boot_id"])(boot_id)

    async def inspect(self) -> Inspection:
        return self.found


class Vm:
    id = "vm-1"
    provider = "test"

    def __init__(self, guest: object) -> None:
        self.guest: Any = guest


def hygiene() -> Hygiene:
    return Hygiene(clock=lambda: NOW)


async def check(
    checks: Hygiene, guest: Guest, fresh: Inspection | None = None, /, **changes: object
) -> Inspection:
    if changes:
        guest.found = dataclasses.replace(guest.found, **changes)  # type: ignore[arg-type] # by name, as given
    return await checks.check(Vm(guest), fresh)


async def test_a_vm_as_fresh_as_it_was_new_is_clean() -> None:
    checks = hygiene()
    fresh = await check(checks, Guest("boot-1"))
    assert await check(checks, Guest("boot-2"), fresh)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hostname": "vm-2"}, "it calls itself 'vm-2'"),
        ({"boot_id": "boot-3"}, "its boot id is another than it had a moment ago"),
        ({"boot_id": ""}, "its boot id"),
        ({"entropy": b"boot-1"}, "its random numbers have been seen before"),
        ({"entropy": b""}, "its random numbers"),
        ({"clock": NOW + 2.5}, "its clock is +2.5 s off"),
        ({"clock": NOW - 3}, "its clock is -3.0 s off"),
        ({"state": {**STATE, "files": ("a", "b", "leaked")}}, "files: 'leaked' should not be there"),
        ({"state": {**STATE, "processes": ("agent", "init")}}, "processes: 'init' is missing"),
        (
            {"state": {**STATE, "processes": ("agent", "init", "init", "init")}},
            "processes: 'init' should not be there",
        ),
        ({"state": {"files": ("a", "b")}}, "processes: 'init' is missing"),
        ({"state": {**STATE, "news": ("x",)}}, "news: 'x' should not be there"),
    ],
)
async def test_what_makes_a_vm_unclean(changes: dict[str, object], complaint: str) -> None:
    checks = hygiene()
    fresh = await check(checks, Guest("boot-1"))
    with pytest.raises(UncleanError) as caught:
        await check(checks, Guest("boot-2"), fresh, **changes)
    assert complaint in caught.value.message
    assert "vm-1" in caught.value.message


async def test_a_boot_id_is_good_for_once() -> None:
    checks = hygiene()
    await check(checks, Guest("boot-1"))
    with pytest.raises(UncleanError, match="its own past"):
        await check(checks, Guest("boot-1", entropy=b"new"))


async def test_a_clock_two_seconds_off_is_still_right() -> None:
    await check(hygiene(), Guest(clock=NOW - 2))


async def test_a_long_list_of_complaints_is_cut_short() -> None:
    checks = hygiene()
    fresh = await check(checks, Guest("boot-1"))
    left = {**STATE, "files": tuple(f"file {number}" for number in range(500))}
    with pytest.raises(UncleanError, match=r"and \d+ more") as caught:
        await check(checks, Guest("boot-2", state=left), fresh)
    assert len(caught.value.message) < 1000


@in_virtual_time
async def test_a_guest_that_does_not_answer_is_not_waited_for_long() -> None:
    class Mute(Guest):
        async def inspect(self) -> Inspection:
            await asyncio.Event().wait()
            return self.found

    with pytest.raises(GuestTimeout, match="did not say within 15 s"):
        await check(hygiene(), Mute())


# Warming up


async def test_warming_up_runs_a_program_and_leaves_nothing() -> None:
    ran: list[str] = []

    async def handler(spec: ExecSpec, _call: object) -> None:
        ran.append(spec.argv[0])

    provider = FakeProvider(handler=handler)
    guest: Any = (await provider.allocate(VmSpec())).vm.guest
    before = await guest.inspect()
    assert await warm_up(guest) > 0
    assert ran == ["bash"]
    assert (await guest.inspect()).state == before.state
    assert not guest.roots
    await provider.close()


@in_virtual_time
async def test_what_warmed_a_vm_up_may_take_a_while_to_go() -> None:
    class Cleaning(Guest):
        left = 3

        async def inspect(self) -> Inspection:
            self.left -= 1
            files = ("a", "b", "warm-up")[: 2 + (self.left > 0)]
            return dataclasses.replace(self.found, state={**STATE, "files": files})

    guest = Cleaning()
    await hygiene().settle(Vm(guest), guest.found)
    assert guest.left == 0


@in_virtual_time
async def test_what_warmed_a_vm_up_must_go() -> None:
    guest = Guest()
    fresh = guest.found
    guest.found = dataclasses.replace(fresh, state={**STATE, "processes": ("agent", "sleep")})
    with pytest.raises(UncleanError, match="keeps what warmed it up: processes: 'sleep'"):
        await hygiene().settle(Vm(guest), fresh)


async def test_warming_a_dead_guest_up() -> None:
    provider = FakeProvider()
    vm = (await provider.allocate(VmSpec())).vm
    await provider.release(vm)
    with pytest.raises(GuestLost):
        await warm_up(vm.guest)


@in_virtual_time
async def test_a_program_that_does_not_end_is_not_waited_for_long() -> None:
    async def handler(_spec: ExecSpec, _call: object) -> None:
        await asyncio.Event().wait()

    provider = FakeProvider(handler=handler)
    guest: Any = (await provider.allocate(VmSpec())).vm.guest
    with pytest.raises(GuestTimeout, match="did not run within 30 s"):
        await warm_up(guest)
    assert not guest.roots
    await provider.close()


async def test_an_open_job_is_seen() -> None:
    provider = FakeProvider()
    vm = (await provider.allocate(VmSpec())).vm
    checks = Hygiene()
    fresh = await checks.check(vm, None)
    await vm.guest.open_job(JobRootSpec("left open"))
    with pytest.raises(UncleanError, match="jobs: 'left open' should not be there"):
        await checks.check(vm, fresh)
    await provider.close()
