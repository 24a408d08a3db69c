"""What only the fake can do: go wrong on purpose, on time, in memory."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from cloche.errors import GuestError, GuestLost, GuestTimeout, ProviderError
from cloche.vm.fake import Call, FakeProvider, FakeRoot, FakeVm
from cloche.vm.guest import ExecSpec, ExitStatus, JobRootSpec
from cloche.vm.provider import MIB, VmSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def make(provider: FakeProvider | None = None, spec: VmSpec | None = None) -> FakeVm:
    vm = (await (provider or FakeProvider()).allocate(spec or VmSpec())).vm
    assert isinstance(vm, FakeVm)
    return vm


async def open_root(provider: FakeProvider | None = None, spec: VmSpec | None = None) -> FakeRoot:
    return await (await make(provider, spec)).guest.open_job(JobRootSpec("job"))


async def run(root: FakeRoot, script: str) -> tuple[bytes, ExitStatus]:
    process = await root.exec(ExecSpec(["sh", "-c", script]))
    output = b"".join([chunk async for chunk in process.output()])
    return output, await process.wait()


# Determinism


async def test_time_is_what_the_test_says() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    times = iter([100.0, 100.25])
    provider = FakeProvider(sleep=sleep, clock=lambda: next(times))
    allocation = await provider.allocate(VmSpec())
    assert allocation.duration == 0.25
    async with await allocation.vm.guest.open_job(JobRootSpec("job")) as root:
        process = await root.exec(ExecSpec(["sh", "-c", "sleep 90; sleep 1.5m; sleep 2h"]))
        assert (await process.wait()).code == 0
    assert slept == [90, 90, 7200]


async def test_a_boot_id_belongs_to_its_vm() -> None:
    vm = await make()
    other = await make()
    assert vm.guest.info.boot_id != other.guest.info.boot_id
    assert vm.guest.info.hostname == vm.id
    assert "fake" in vm.guest.info.kernel


# Scripted behaviour


async def test_a_handler_may_carry_out_a_program() -> None:
    async def handler(spec: ExecSpec, call: Call) -> int | None:
        if spec.argv[0] != "deploy":
            return None
        await call.print(f"deploying {spec.argv[1]} with {call.task.files.read('/plan').decode()}\n")
        call.task.files.write("/done", b"yes")
        return 3

    root = await open_root(FakeProvider(handler=handler))
    process = await root.exec(ExecSpec(["deploy", "web"], files={"/plan": b"care"}, collect=["/done"]))
    assert b"".join([chunk async for chunk in process.output()]) == b"deploying web with care\n"
    status = await process.wait()
    assert (status.code, status.collected["/done"].content) == (3, b"yes")
    assert (await run(root, "echo still a shell"))[0] == b"still a shell\n"


async def test_a_handler_may_tell_a_whole_status() -> None:
    async def handler(_spec: ExecSpec, _call: Call) -> ExitStatus:
        return ExitStatus(137, signal=9, oom_kills=2, max_rss=64 * MIB)

    root = await open_root(FakeProvider(handler=handler))
    status = await (await root.exec(ExecSpec(["anything"]))).wait()
    assert (status.code, status.oom_kills, status.max_rss) == (137, 2, 64 * MIB)
    assert status.boot_id == root.guest.info.boot_id


async def test_a_handler_may_lose_the_guest() -> None:
    async def handler(_spec: ExecSpec, call: Call) -> None:
        await call.print("last words\n")
        raise GuestLost("the kernel panicked")

    root = await open_root(FakeProvider(handler=handler))
    process = await root.exec(ExecSpec(["anything"]))
    with pytest.raises(GuestLost, match="panicked"):
        await process.wait()
    with pytest.raises(GuestLost, match="panicked"):
        await root.guest.ping()


async def test_a_program_may_be_added() -> None:
    async def greet(call: Call) -> int:
        await call.print(f"hello {call.argv[1]}\n")
        return 0

    root = await open_root(FakeProvider(programs={"greet": greet}))
    assert (await run(root, "greet you | cat; command -v greet"))[0] == b"hello you\n/usr/bin/greet\n"


async def test_allocation_may_fail_and_recover() -> None:
    asked: list[tuple[int, int]] = []

    async def on_allocate(spec: VmSpec, number: int) -> None:
        asked.append((number, spec.cpus))
        if number == 2:
            raise ProviderError("out of room")

    provider = FakeProvider(on_allocate=on_allocate)
    await provider.allocate(VmSpec(cpus=1))
    with pytest.raises(ProviderError, match="out of room"):
        await provider.allocate(VmSpec(cpus=2))
    await provider.allocate(VmSpec(cpus=3))
    assert asked == [(1, 1), (2, 2), (3, 3)]


def test_it_says_what_it_is() -> None:
    assert "no VM" in FakeProvider().notes[0]


# Bad days, from inside a step


async def test_a_step_may_lose_its_guest() -> None:
    root = await open_root()
    process = await root.exec(ExecSpec(["sh", "-c", "echo before; fake lose; echo after"]))
    output = process.output()
    assert await anext(output) == b"before\n"
    with pytest.raises(GuestLost, match="fake lose"):
        await anext(output)
    with pytest.raises(GuestLost):
        await process.wait()
    for refused in (root.exec(ExecSpec(["true"])), root.hash_files("/", []), root.guest.ping()):
        with pytest.raises(GuestLost):
            await refused
    await root.close()


async def test_a_guest_may_fall_silent() -> None:
    root = await open_root()
    process = await root.exec(ExecSpec(["sh", "-c", "echo before; fake silent; echo after"]))
    assert await anext(process.output()) == b"before\n"
    for _ in range(100):
        await asyncio.sleep(0)
    with pytest.raises(GuestTimeout):
        await root.guest.ping()
    await process.signal(signal.SIGKILL)
    waiting = asyncio.create_task(process.wait())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await root.close()


async def test_a_step_may_be_killed_for_memory() -> None:
    root = await open_root()
    output, status = await run(root, "echo before; fake oom; echo $?")
    assert output == b"before\n137\n"
    assert (status.code, status.oom_kills) == (0, 1)
    assert (await run(root, "true"))[1].oom_kills == 0


async def test_a_step_may_refuse_to_end() -> None:
    root = await open_root()
    process = await root.exec(ExecSpec(["fake", "hang"]))
    await asyncio.sleep(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        await process.signal(number)
    assert (await process.wait()).signal == signal.SIGKILL


async def test_a_step_may_flood() -> None:
    root = await open_root()
    process = await root.exec(ExecSpec(["cat", "/dev/zero"]))
    received = 0
    async for chunk in process.output():
        received += len(chunk)
        if received > 4 * MIB:
            break
    assert len(process._output._waiting) <= 65536
    await process.signal(signal.SIGKILL)
    assert (await process.wait()).code == 137


async def test_a_step_may_fill_its_disk() -> None:
    root = await open_root(spec=VmSpec(disk=1000))
    output, status = await run(
        root, "head -c 2000 /dev/zero > /tmp/big; echo $?; rm /tmp/big; echo ok > /tmp/small"
    )
    assert b"No space left on device" in output
    assert status.code == 0
    with pytest.raises(GuestError, match="No space left"):
        await root.put("/tmp", archive(2000))
    assert (await root.exec(ExecSpec(["true"], files={"/tmp/f": bytes(2000)}))) is not None


async def archive(size: int) -> AsyncIterator[bytes]:
    import io
    import tarfile

    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        entry = tarfile.TarInfo("big")
        entry.size = size
        tar.addfile(entry, io.BytesIO(bytes(size)))
    yield target.getvalue()


async def test_closing_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    root = await open_root()
    for script in (
        "sleep inf & sleep inf",
        "sleep inf | sleep inf",
        "trap '' TERM; sleep inf",
        "cat /dev/zero",
    ):
        await root.exec(ExecSpec(["sh", "-c", script]))
    for _ in range(20):
        await asyncio.sleep(0)
    await root.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_busy_step_leaves_time_for_others() -> None:
    root = await open_root()
    busy = await root.exec(ExecSpec(["sh", "-c", "while x=1; do y=2; done"]))
    async with asyncio.timeout(10):
        assert (await run(root, "echo fine"))[0] == b"fine\n"
    await busy.signal(signal.SIGTERM)
    assert (await busy.wait()).code == 143
