"""The daemon with real guests. What needs none: tests/e2e/test_daemon.py and test_kills.py."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloche.daemon.sessions import LentSessions
from cloche.session import SessionContext
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.snapshot import VmSnapshot
from tests.e2e.daemon import Daemon
from tests.e2e.endings import chance
from tests.e2e.kills import Kills
from tests.e2e.place import Place, beside_images, lacking, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloche.vm.guest import JobRoot

pytestmark = pytest.mark.vm
ROUNDS = 4


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Place]:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    made = Place(tmp_path / "place", "qemu")
    yield made
    made.assert_clean()


def test_a_vm_waits_is_used_and_comes_back_another_guest(qemu: Place) -> None:
    """With a pool of one, two runs have VMs of one id: the second finds nothing of the first."""
    (qemu.folder / "config/cloche").mkdir()
    (qemu.folder / "config/cloche/config.toml").write_text("[pool]\nmax = 1\n")
    qemu.steps(
        "- run: |\n    cat /proc/sys/kernel/random/boot_id; test ! -e /tmp/soiled; sudo touch /tmp/soiled\n"
        "    sleep 1000 & ! pgrep -a sleep | grep -v $!"
    )
    with Daemon(qemu) as daemon:
        one = qemu.run("run", "--output", "jsonl")
        left = settled(lambda: [] if daemon.status["providers"]["qemu"]["pool"]["idle"] else ["not idle"], 20)
        assert not left
        other = qemu.run("run", "--output", "jsonl")
    sessions = [ended.one("session.created") for ended in (one, other)]
    assert [ended.code for ended in (one, other)] == [0, 0], (one, other)
    assert [session["source"] for session in sessions] == ["warm", "warm"]
    assert sessions[0]["vm_id"] == sessions[1]["vm_id"]
    boots = [ended.output().split()[0] for ended in (one, other)]
    assert boots == [session["boot_id"] for session in sessions]
    assert boots[0] != boots[1]


def test_kills_at_any_moment(qemu: Place) -> None:
    Kills(qemu, chance("kills")).rounds(ROUNDS)


async def test_a_lent_vm_is_kept_put_back_and_made_anew(qemu: Place) -> None:
    """As its borrower does it, whose process the VM is no child of."""
    context = SessionContext("Test")
    kept = beside_images(qemu.folder.parent.name)
    try:
        with Daemon(qemu):
            control = str(qemu.folder / "runtime/cloche/daemon/control.sock")
            async with await lent(control) as sessions:
                session = await sessions.create_session(context)
                root = await session.vm.guest.open_job(JobRootSpec("job"))
                assert await run(root, "echo one | tee /tmp/file") == "one\n"
                snapshot = await sessions.snapshot(session, kept / "cut")
                await run(root, "echo two >> /tmp/file")
                await sessions.restore(session, snapshot)
                root = session.vm.guest.reopen_job(root.name)
                assert await run(root, "cat /tmp/file") == "one\n"
                vm_id = session.vm_id
            async with await lent(control) as sessions:
                session = await sessions.create_session(
                    replace(context, snapshot=VmSnapshot.load(kept / "cut"))
                )
                assert session.vm_id == vm_id, "its id was given to another"
                assert session.vm.guest.info.boot_id == snapshot.boot_id
                assert await run(session.vm.guest.reopen_job(root.name), "cat /tmp/file") == "one\n"
    finally:
        shutil.rmtree(kept, ignore_errors=True)


async def lent(control: str) -> LentSessions:
    sessions = await LentSessions.open(control, "qemu", {})
    assert sessions is not None
    return sessions


async def run(root: JobRoot, script: str) -> str:
    process = await root.exec(ExecSpec(["bash", "-e", "-c", script], {"PATH": "/usr/bin:/bin"}))
    output = b"".join([chunk async for chunk in process.output()]).decode()
    assert (await process.wait()).code == 0, output
    return output
