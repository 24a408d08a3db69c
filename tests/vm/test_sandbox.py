"""What only sandboxes can show: what their jobs see of this host, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from cloche.config import data_dir
from cloche.errors import GuestLost, ProviderError
from cloche.guest.processes import descendants
from cloche.image.model import Image
from cloche.image.store import ImageStore
from cloche.vm.guest import ExecSpec, ExitStatus, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.sandbox.provider import SandboxProvider, SandboxVm
from tests.e2e.place import lacking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cloche.vm.guest import JobRoot

pytestmark = [pytest.mark.sandbox]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEADLINE = 30


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if reason := lacking("sandbox"):
        pytest.skip(reason)


@pytest.fixture
def provider(tmp_path: Path) -> SandboxProvider:
    return SandboxProvider(ImageStore(data_dir()), tmp_path / "vms")


async def allocate(provider: SandboxProvider, spec: VmSpec) -> SandboxVm:
    made = (await provider.allocate(spec)).vm
    assert isinstance(made, SandboxVm)
    return made


@pytest_asyncio.fixture
async def vm(provider: SandboxProvider) -> AsyncIterator[SandboxVm]:
    made = await allocate(provider, VmSpec(network="none"))
    yield made
    await provider.release(made)


@pytest_asyncio.fixture
async def root(vm: SandboxVm) -> AsyncIterator[JobRoot]:
    async with await vm.guest.open_job(JobRootSpec("job")) as made:
        yield made


async def run(root: JobRoot, text: str, **spec: object) -> tuple[str, ExitStatus]:
    process = await root.exec(ExecSpec(["bash", "-c", text], {"PATH": PATH}, "/tmp", **spec))  # type: ignore[arg-type] # by name, as given
    async with asyncio.timeout(DEADLINE):
        output = b"".join([chunk async for chunk in process.output()])
        return output.decode(), await process.wait()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_a_sandbox_has_a_boot_id_of_its_own_on_the_hosts_kernel(vm: SandboxVm, root: JobRoot) -> None:
    output, status = await run(root, "cat /proc/sys/kernel/random/boot_id; uname -r")
    assert output.split() == [vm.guest.info.boot_id, os.uname().release]
    assert (
        status.boot_id
        == vm.guest.info.boot_id
        != Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    )


async def test_the_hosts_files_and_processes_are_out_of_sight(root: JobRoot, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    output, status = await run(root, f"cat {secret}; ps -e -o pid= | wc -l", user="root")
    assert "secret\n" not in output.replace(str(secret), "")
    assert int(output.split()[-1]) < 10
    assert status.code == 0


@pytest.mark.parametrize(
    "wicked",
    [
        "echo 1 > /proc/sys/kernel/sysrq",
        "echo b > /proc/sysrq-trigger",
        "echo sandboxed > /proc/sys/kernel/hostname",
        "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk",
        "chroot /proc/1/root ls /work",
        "echo 0 > /proc/1/oom_score_adj && kill -9 1 && echo still here && false",
    ],
)
async def test_root_in_a_sandbox_does_not_rule_the_host(root: JobRoot, wicked: str) -> None:
    _, status = await run(root, wicked, user="root")
    assert status.code != 0
    assert (await run(root, "echo fine"))[0] == "fine\n"


async def test_without_a_network_the_hosts_loopback_is_out_of_reach(root: JobRoot) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _, status = await run(root, f"timeout 5 bash -c 'exec 3<> /dev/tcp/127.0.0.1/{port}'")
        assert status.code == 1


async def test_the_notes_say_what_a_sandbox_is_not(provider: SandboxProvider) -> None:
    vm = await allocate(provider, VmSpec())
    await provider.release(vm)
    notes = " ".join(provider.notes)
    assert "no VM" in notes
    assert "network" in notes
    assert ("without root" in notes) == (os.geteuid() != 0)


async def test_sudo_works_whoever_started_the_sandbox(root: JobRoot) -> None:
    output, status = await run(
        root, "sudo -n id -u; A=1 sudo -E B=2 sh -c 'echo $B'; echo x | sudo tee /etc/x"
    )
    assert (output, status.code) == ("0\n2\nx\n", 0)


async def test_a_release_leaves_neither_processes_nor_files(
    provider: SandboxProvider, tmp_path: Path
) -> None:
    vm = await allocate(provider, VmSpec())
    root = await vm.guest.open_job(JobRootSpec("job"))
    await run(root, "mkdir -m 000 /tmp/closed; (setsid sleep 1000 > /dev/null 2>&1 &); touch /tmp/file")
    children = Path(f"/proc/{vm.child.pid}/task/{vm.child.pid}/children").read_text("ascii").split()
    await provider.release(vm)
    assert not any(is_running(int(pid)) for pid in [str(vm.child.pid), *children])
    assert list((tmp_path / "vms").iterdir()) == []


async def test_input_ends_though_another_root_was_made_meanwhile(vm: SandboxVm, root: JobRoot) -> None:
    process = await root.exec(ExecSpec(["cat"], {"PATH": PATH}, stdin=True))
    async with await vm.guest.open_job(JobRootSpec("other")):
        await process.close_stdin()
        async with asyncio.timeout(DEADLINE):
            assert (await process.wait()).code == 0


async def test_a_killed_agent_is_a_lost_guest(provider: SandboxProvider) -> None:
    vm = await allocate(provider, VmSpec())
    root = await vm.guest.open_job(JobRootSpec("job"))
    process = await root.exec(ExecSpec(["sleep", "1000"], {"PATH": PATH}))
    os.kill(vm.child.pid, signal.SIGKILL)
    with pytest.raises(GuestLost, match="exit code -9"):
        async with asyncio.timeout(DEADLINE):
            await process.wait()
    await provider.release(vm)


class Broken:
    """An image store whose only image has lost its files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
        self._image = Image("job", "0" * 64, folder, {})

    def resolve(self, name: str, kind: str) -> Image:
        del name, kind
        return self._image


@pytest.mark.skipif(os.geteuid() != 0, reason="without root the image is first looked at when a job opens")
async def test_a_sandbox_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    provider = SandboxProvider(Broken(tmp_path / "image"), tmp_path / "vms")  # type: ignore[arg-type] # as far as it is asked
    with pytest.raises(ProviderError, match="No such file or directory"):
        await allocate(provider, VmSpec())
    await provider.close()
    assert list((tmp_path / "vms").iterdir()) == []


OWNER = """
import asyncio, sys
from pathlib import Path
from cloche.config import data_dir
from cloche.image.store import ImageStore
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.sandbox.provider import SandboxProvider

async def main():
    provider = SandboxProvider(ImageStore(data_dir()), Path(sys.argv[1]))
    vm = (await provider.allocate(VmSpec())).vm
    root = await vm.guest.open_job(JobRootSpec("job"))
    process = await root.exec(ExecSpec(["bash", "-c", sys.argv[2]], {"PATH": sys.argv[3]}))
    print(await anext(process.output()), flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a sandbox with two programs in it, one of them in a session of its own."""
    program = "(setsid sleep 1000 > /dev/null 2>&1 &); echo up; sleep 1000"
    argv = [sys.executable, "-c", OWNER, str(tmp_path / "vms"), program, PATH]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def test_nothing_outlives_a_killed_owner(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    assert "up" in owner.stdout.readline()
    family = descendants(owner.pid) - {owner.pid}
    assert len(family) >= 6  # three that make the sandbox, a job's init, the shell and the sleep
    owner.kill()
    owner.wait()
    until = time.monotonic() + 5
    while any(map(is_running, family)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_running, family))
