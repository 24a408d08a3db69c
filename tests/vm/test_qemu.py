"""What only real guests can show: copies of one template, their ends, their limits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from cloche.config import data_dir
from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.image.store import ImageStore
from cloche.vm import agent_archive
from cloche.vm.channel import Deadlines
from cloche.vm.guest import ExecSpec, ExitStatus, JobRootSpec
from cloche.vm.provider import GIB, MIB, VmSpec
from cloche.vm.qemu.provider import QemuProvider
from cloche.vm.qemu.vm import QemuVm
from tests.e2e.place import lacking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from cloche.vm.guest import JobRoot
    from cloche.vm.remote import RemoteProcess

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SPEC = VmSpec(memory=GIB)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEADLINE = 60
"""Seconds for what takes less than one: the machine may be busy, and guests are emulated."""
HOST = "10.0.2.2"
"""The host's loopback, as a guest sees it through QEMU's user-mode network."""


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if reason := lacking("qemu"):
        pytest.skip(reason)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QemuProvider]:
    """One for all; its templates are the user's own, and worth keeping."""
    made = QemuProvider(ImageStore(data_dir()), data_dir(), tmp_path_factory.mktemp("vms"))
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def vm(provider: QemuProvider) -> AsyncIterator[QemuVm]:
    made = await allocate(provider)
    yield made
    await provider.release(made)


async def allocate(provider: QemuProvider, spec: VmSpec = SPEC) -> QemuVm:
    made = (await provider.allocate(spec)).vm
    assert isinstance(made, QemuVm)
    return made


@contextlib.asynccontextmanager
async def a_job(vm: QemuVm, **limits: int) -> AsyncIterator[JobRoot]:
    async with await vm.guest.open_job(JobRootSpec("job", **limits)) as root:  # type: ignore[arg-type] # numbers, by name
        yield root


async def start(root: JobRoot, text: str, **spec: object) -> RemoteProcess:
    made = ExecSpec(["bash", "-c", text], {"PATH": PATH}, "/tmp", **spec)  # type: ignore[arg-type] # by name, as given
    process: RemoteProcess = await root.exec(made)  # type: ignore[assignment] # that is what a guest's is
    return process


async def run(root: JobRoot, text: str, **spec: object) -> tuple[str, ExitStatus]:
    process = await start(root, text, **spec)
    async with asyncio.timeout(DEADLINE):
        output = b"".join([chunk async for chunk in process.output()])
        return output.decode(), await process.wait()


async def line(process: RemoteProcess) -> str:
    """What a program says first; a word is no more than one chunk."""
    async with asyncio.timeout(DEADLINE):
        return (await anext(process.output())).decode().strip()


async def hear(process: RemoteProcess, words: bytes) -> None:
    """Wait until a program has said these words."""
    said = b""
    async with asyncio.timeout(DEADLINE):
        async for chunk in process.output():
            said = said[-len(words) :] + chunk
            if words in said:
                return
    raise AssertionError(f"it ended without saying {words!r}")


# Copies of one template


TOLD = "cat /proc/sys/kernel/random/{boot_id,uuid} /etc/machine-id; head -c 32 /dev/urandom | sha256sum; uname -r"


async def test_copies_of_one_template_are_guests_of_their_own(provider: QemuProvider) -> None:
    vms = await asyncio.gather(*(allocate(provider) for _ in range(3)))
    told = []
    try:
        for vm in vms:
            async with a_job(vm) as root:
                output, status = await run(root, TOLD)
            told.append(output.split("\n"))
            assert told[-1][0] == status.boot_id == vm.guest.info.boot_id
            assert told[-1][4] == vm.guest.info.kernel
    finally:
        await asyncio.gather(*map(provider.release, vms))
    for what in range(4):  # boot id, a random uuid, machine id, randomness
        assert len({lines[what] for lines in told}) == 3, told
    assert [vm.guest.info.hostname for vm in vms] == [vm.id for vm in vms]


async def test_the_boot_id_stays_the_same_within_a_vm(vm: QemuVm) -> None:
    seen = {vm.guest.info.boot_id}
    for _ in range(2):
        async with a_job(vm) as root:
            output, status = await run(root, "cat /proc/sys/kernel/random/boot_id")
            seen |= {output.strip(), status.boot_id}
    assert len(seen) == 1


async def test_the_kernel_is_the_images_and_not_the_hosts(vm: QemuVm) -> None:
    image = ImageStore(data_dir()).resolve("system", "system")
    assert vm.guest.info.kernel == image.release != os.uname().release


async def test_the_clock_is_right_from_the_start(provider: QemuProvider) -> None:
    vm = await allocate(provider)
    try:
        async with a_job(vm) as root:
            before = time.time()
            output, _ = await run(root, "echo $EPOCHREALTIME")
            after = time.time()
        assert before - 1 <= float(output) <= after + 1
    finally:
        await provider.release(vm)


# The ends of guests


async def test_a_killed_qemu_is_a_lost_guest_at_once(provider: QemuProvider, vm: QemuVm) -> None:
    async with a_job(vm) as root:
        process = await start(root, "echo up; sleep 1000")
        assert await line(process) == "up"
        os.kill(vm.process.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(GuestLost):
            await process.wait()
        assert time.monotonic() - started < 5
    await provider.release(vm)


async def test_a_guest_that_panics_is_lost_at_once(vm: QemuVm) -> None:
    async with a_job(vm) as root:
        process = await start(root, "echo c > /proc/sysrq-trigger; sleep 1000", user="root")
        with pytest.raises(GuestLost):
            async with asyncio.timeout(DEADLINE):
                await process.wait()


async def test_a_guest_that_hangs_is_told_and_can_be_released(provider: QemuProvider, vm: QemuVm) -> None:
    vm.guest.deadlines = Deadlines(beat=0.1, pulse=2)
    async with a_job(vm) as root:
        process = await start(root, "echo up; sleep 1000")
        assert await line(process) == "up"
        os.kill(vm.process.pid, signal.SIGSTOP)
        with pytest.raises(GuestTimeout, match="hangs"):
            async with asyncio.timeout(DEADLINE):
                await process.wait()
    await provider.release(vm)
    assert vm.process.child.ended


OWNER = """
import asyncio, sys
from pathlib import Path
from cloche.config import data_dir
from cloche.image.store import ImageStore
from cloche.vm.provider import GIB, VmSpec
from cloche.vm.qemu.provider import QemuProvider

async def main():
    provider = QemuProvider(
        ImageStore(data_dir()), Path(sys.argv[1]), Path(sys.argv[2]), accelerator=sys.argv[3],
        note=lambda text: print(text, flush=True),
    )
    vm = (await provider.allocate(VmSpec(memory=GIB))).vm
    print(vm.process.pid, vm.guest.info.boot_id, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await provider.close()

asyncio.run(main())
"""
READY = re.compile(r"(\d+) ([0-9a-f-]{36})")


class Owner:
    """Another process that has a VM."""

    def __init__(self, data: Path, vms: Path, accelerator: str) -> None:
        argv = [sys.executable, "-c", OWNER, str(data), str(vms), accelerator]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.notes: list[str] = []

    def ready(self) -> tuple[int, str]:
        """QEMU's process id and the guest's boot id, once there is a guest."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if found := READY.fullmatch(said.strip()):
                return int(found[1]), found[2]
            self.notes.append(said)
        raise AssertionError(f"the owner ended: {self.notes}")

    def close(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[[Path, str], Owner]]:
    owners: list[Owner] = []

    def make(data: Path, accelerator: str) -> Owner:
        owners.append(Owner(data, tmp_path / "vms", accelerator))
        return owners[-1]

    yield make
    for owner in owners:
        owner.close()


async def test_no_qemu_outlives_a_killed_owner(
    provider: QemuProvider, own: Callable[[Path, str], Owner]
) -> None:
    owner = own(data_dir(), await provider.choose_accelerator(SPEC))
    pid, _ = await asyncio.to_thread(owner.ready)
    qemu = os.pidfd_open(pid)
    owner.process.kill()
    ended, _, _ = select.select([qemu], [], [], 5)
    os.close(qemu)
    assert ended


# Templates


async def test_a_template_is_made_once_for_all_and_again_for_another_agent(
    provider: QemuProvider,
    own: Callable[[Path, str], Owner],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tmp_path / "data"
    accelerator = await provider.choose_accelerator(SPEC)
    owners = [own(data, accelerator) for _ in range(2)]
    ready = [await asyncio.to_thread(owner.ready) for owner in owners]
    assert len({boot_id for _, boot_id in ready}) == 2
    assert sum("making the template" in note for owner in owners for note in owner.notes) == 1
    assert [folder.suffix for folder in templates(data)] == [""]
    for owner in owners:
        owner.close()

    sources = agent_archive.sources()
    monkeypatch.setattr(agent_archive, "sources", lambda: [*sources, ("cloche/guest/extra.py", b"")])
    changed = QemuProvider(ImageStore(data_dir()), data, tmp_path / "vms", accelerator=accelerator)
    for _ in range(2):
        await changed.release(await allocate(changed))
        assert len(templates(data)) == 2
    shutil.rmtree(data)


def templates(data: Path) -> list[Path]:
    return [entry for entry in (data / "templates").iterdir() if entry.is_dir()]


# Programs and files


async def test_killing_a_program_that_is_just_being_started(vm: QemuVm) -> None:
    """Its job's init is in its control group for that moment, and must not go with it."""
    async with a_job(vm) as root:
        for _ in range(10):
            process = await start(root, "sleep 1000")
            await process.signal(signal.SIGKILL)
            async with asyncio.timeout(DEADLINE):
                assert (await process.wait()).signal == signal.SIGKILL
        assert (await run(root, "echo fine"))[0] == "fine\n"


async def test_nothing_that_the_agent_ignores_is_ignored_by_programs(vm: QemuVm) -> None:
    async with a_job(vm) as root:
        output, _ = await run(root, "grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd | wc -l")
        assert output.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16, "4"]


async def archive(content: bytes) -> AsyncIterator[bytes]:
    """A file named ``big``."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        entry = tarfile.TarInfo("big")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    yield target.getvalue()


async def test_large_files_arrive_as_they_are_one_after_another(vm: QemuVm) -> None:
    async with a_job(vm) as root:
        for size in (3_000_000, 1_000_001, 5_000_000):
            content = os.urandom(size)
            await root.put("/tmp", archive(content))
            output, _ = await run(root, "sha256sum < /tmp/big")
            assert output.split()[0] == hashlib.sha256(content).hexdigest()


# Jobs side by side

LISTEN = """python3 -c '
import socket
listener = socket.create_server(("127.0.0.1", 5432))
print("listening", flush=True)
input()
'"""


async def test_jobs_side_by_side_see_nothing_of_each_other(vm: QemuVm) -> None:
    async with a_job(vm) as one, a_job(vm) as other:
        servers = [await start(root, LISTEN, stdin=True) for root in (one, other)]
        assert [await line(server) for server in servers] == ["listening"] * 2
        await run(one, "echo secret > /tmp/one; echo secret > /usr/local/one", user="root")
        found, _ = await run(other, "cat /tmp/one /usr/local/one 2> /dev/null; ps -e -o args=", user="root")
        assert "secret" not in found
        assert found.count("create_server") == 1
        for server in servers:
            await server.close_stdin()


# The network


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on the host's loopback that greets whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    guest, _ = server.accept()
                    with guest:
                        guest.sendall(b"hello from the host")

        thread = threading.Thread(target=greet)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)


def connect(host: str, port: int) -> str:
    return f"timeout 10 bash -c 'exec 3<> /dev/tcp/{host}/{port} && cat <&3'"


async def test_a_guest_with_a_network_reaches_the_host(vm: QemuVm, listener: int) -> None:
    async with a_job(vm) as root:
        output, status = await run(root, connect(HOST, listener))
    assert (output, status.code) == ("hello from the host", 0)


async def test_a_guest_without_a_network_has_no_way_out(provider: QemuProvider, listener: int) -> None:
    vm = await allocate(provider, VmSpec(memory=GIB, network="none"))
    try:
        async with a_job(vm) as root:
            output, status = await run(root, connect(HOST, listener))
            assert ("hello" in output, status.code == 0) == (False, False)
            output, status = await run(root, f"{LISTEN.replace('input()', 'listener.close()')}")
            assert (output, status.code) == ("listening\n", 0)
    finally:
        await provider.release(vm)


async def test_names_resolve_as_on_the_host(vm: QemuVm) -> None:
    async with a_job(vm) as root:
        mirror, _ = await run(root, "grep -ohE '//[^/ ]+' /etc/apt/sources.list | head -1")
        name = mirror.strip().strip("/")  # where the image's packages came from: a name this host knew once
        try:
            await asyncio.get_running_loop().getaddrinfo(name, None)
        except OSError as error:
            pytest.skip(f"this host resolves no names: {error}")
        output, status = await run(root, f"getent hosts {name}")
    assert status.code == 0, output


# Limits

BOMB = "f() { f | f & }; f; echo up; sleep 1000"


@pytest.mark.parametrize("limits", [{"pids": 100}, {}], ids=["told", "default"])
async def test_a_fork_bomb_is_bounded_and_can_be_killed(vm: QemuVm, limits: Mapping[str, int]) -> None:
    async with a_job(vm, **limits) as root, a_job(vm) as neighbour:
        bomb = await start(root, BOMB)
        await hear(bomb, b"Resource temporarily unavailable")
        output, status = await run(neighbour, "echo undisturbed")
        assert (output, status.code) == ("undisturbed\n", 0)
        await bomb.signal(signal.SIGKILL)
        async with asyncio.timeout(DEADLINE):
            async for _ in bomb.output():
                pass
            assert (await bomb.wait()).signal == signal.SIGKILL
        output, status = await run(root, "ps -e -o comm= | grep -c bash")
        assert (output, status.code) == ("1\n", 0)


HOG = """python3 -c 'hoard = []
while True: hoard.append(b"x" * 10_000_000)'"""


@pytest.mark.parametrize("limits", [{"memory": 200 * MIB}, {}], ids=["told", "default"])
async def test_a_memory_hog_is_killed_and_told(vm: QemuVm, limits: Mapping[str, int]) -> None:
    async with a_job(vm, **limits) as root:
        _, status = await run(root, f"exec {HOG}")
        assert (status.code, status.signal) == (137, signal.SIGKILL)
        assert status.oom_kills >= 1
        output, status = await run(root, "echo fine")
        assert (output, status.code, status.oom_kills) == ("fine\n", 0, 0)
    assert await vm.guest.ping() < DEADLINE


FILL = "fallocate -l $(($(df --output=avail -B1 / | tail -1) - 65536)) /full || true; dd if=/dev/zero of=/rest bs=64k"


async def test_a_full_disk_is_an_error_of_the_step(vm: QemuVm) -> None:
    async with a_job(vm) as root:
        output, status = await run(root, FILL, user="root")
        assert status.code == 1
        assert "No space left on device" in output
        output, status = await run(root, "echo lost > /tmp/file")
        assert status.code == 1
        with pytest.raises(GuestError, match="big: No space left on device"):
            await root.put("/tmp", archive(bytes(100_000)))
        assert (await run(root, "echo fine"))[0] == "fine\n"
        refused = [await refusal(vm) for _ in range(4)]  # of roots of which some were made before
        assert refused[0], "the first had nowhere to write its names"
        # What a refused root leaves is removed, which may be room enough for the next.
        assert all("No space left on device" in said for said in refused if said)
    assert await vm.guest.ping() < DEADLINE


async def refusal(vm: QemuVm) -> str:
    """What opening a job root is refused with; empty when it is not."""
    try:
        async with await vm.guest.open_job(JobRootSpec("another")):
            return ""
    except GuestError as error:
        return str(error)


FLOOD = 256 * MIB
GROWTH = 16 * MIB


async def test_a_flood_of_output_keeps_the_hosts_memory_flat(vm: QemuVm) -> None:
    async with a_job(vm) as root:
        process = await start(root, f"head -c {FLOOD} /dev/zero")
        received = most = 0
        before = resident()
        async for chunk in process.output():
            received += len(chunk)
            most = max(most, resident())
            if received % (4 * MIB) < len(chunk):
                await asyncio.sleep(0.05)  # a reader slower than the guest
        assert received == FLOOD
        assert (await process.wait()).code == 0
    assert most - before < GROWTH


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
