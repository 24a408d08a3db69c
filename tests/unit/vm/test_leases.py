from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.vm.leases import Collected, Lease, ProcessRecord, collect

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = """
import subprocess, sys
from pathlib import Path
from cloche.vm.leases import Lease

lease = Lease.take(Path(sys.argv[1]), "vm-owned")
child = subprocess.Popen(["cat", sys.argv[2]], stdout=subprocess.DEVNULL)
lease.record_process(child.pid)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def vms(tmp_path: Path) -> Path:
    return tmp_path / "vms"


@pytest.fixture
def owner(vms: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a VM, whose main process ends with the test at the latest."""
    fifo = vms.with_name("fifo")
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(vms), str(fifo)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process, fifo.open("wb"):
        yield process
        process.kill()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def first_number(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_a_lease_is_a_private_folder_until_dropped(vms: Path) -> None:
    with Lease.take(vms, "vm-1") as lease:
        assert lease.folder == vms / "vm-1"
        assert lease.folder.stat().st_mode & 0o777 == 0o700
        (lease.folder / "disk").write_bytes(b"x")
    assert list(vms.iterdir()) == []
    lease.drop()


def test_a_name_is_given_once(vms: Path) -> None:
    with Lease.take(vms, "vm-1"), pytest.raises(FileExistsError):
        Lease.take(vms, "vm-1")


def test_the_lock_is_not_inherited(vms: Path) -> None:
    with Lease.take(vms, "vm-1") as lease:
        assert lease._descriptor is not None
        assert not os.get_inheritable(lease._descriptor)


def test_the_living_are_left_alone(vms: Path, owner: subprocess.Popen[str]) -> None:
    pid = first_number(owner)
    with Lease.take(vms, "vm-mine"):
        assert collect(vms) == []
        assert (vms / "vm-owned").is_dir()
        assert ProcessRecord.of(pid) is not None


def test_what_a_killed_owner_left_is_ended_and_removed(vms: Path, owner: subprocess.Popen[str]) -> None:
    pid = first_number(owner)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert collect(vms) == [Collected("vm-owned", killed=pid)]
    assert list(vms.iterdir()) == []
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_nothing_to_collect(vms: Path) -> None:
    assert collect(vms) == []


def abandoned(vms: Path, record: object = None) -> Path:
    folder = vms / "vm-left"
    folder.mkdir(parents=True)
    (folder / "owner.lock").touch()
    if record is not None:
        (folder / "vm.json").write_text(json.dumps(record))
    return folder


def test_a_pid_that_means_another_process_now_is_not_killed(
    vms: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    record = ProcessRecord.of(sleeper.pid)
    assert record is not None
    earlier = {"pid": record.pid, "start_time": record.start_time - 1, "host_boot": record.host_boot}
    abandoned(vms, earlier)
    assert collect(vms) == [Collected("vm-left")]
    assert sleeper.poll() is None


def test_a_pid_of_an_earlier_boot_is_not_killed(vms: Path, sleeper: subprocess.Popen[bytes]) -> None:
    record = ProcessRecord.of(sleeper.pid)
    assert record is not None
    abandoned(vms, {"pid": record.pid, "start_time": record.start_time, "host_boot": "another"})
    assert collect(vms) == [Collected("vm-left")]
    assert sleeper.poll() is None


@pytest.mark.parametrize("record", [[], {}, {"pid": "x", "start_time": 1, "host_boot": ""}, "vm", {"pid": 1}])
def test_a_damaged_record_kills_nobody(vms: Path, record: object) -> None:
    abandoned(vms, record)
    assert collect(vms) == [Collected("vm-left")]
    assert list(vms.iterdir()) == []


def test_a_folder_without_its_lock_was_half_made_or_half_removed(vms: Path) -> None:
    (vms / "vm-half").mkdir(parents=True)
    assert collect(vms) == [Collected("vm-half")]
    assert list(vms.iterdir()) == []


def test_folders_of_odd_modes_are_removed(vms: Path) -> None:
    work = abandoned(vms) / "overlay" / "work"
    (work / "deep").mkdir(parents=True)
    (work / "deep" / "file").touch()
    (work / "deep").chmod(0)
    work.chmod(0)
    assert collect(vms) == [Collected("vm-left")]
    assert list(vms.iterdir()) == []


def test_links_are_removed_and_not_followed(vms: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    folder = abandoned(vms)
    (folder / "link").symlink_to(precious)
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to(precious)
    (vms / "vm-link").symlink_to(precious)
    assert collect(vms) == [Collected("vm-left")]
    assert (precious / "file").exists()


def test_what_is_mounted_below_is_not_reached_through(vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = abandoned(vms)
    (folder / "a b").mkdir()
    (folder / "a b" / "of-the-host").touch()
    line = rf"36 35 98:0 / {folder}/a\040b rw,noatime - ext4 /dev/root rw"
    real = Path.read_text

    def read_text(path: Path, *args: str, **keywords: str) -> str:
        return line if str(path) == "/proc/self/mountinfo" else real(path, *args, **keywords)

    monkeypatch.setattr(Path, "read_text", read_text)
    (collected,) = collect(vms)
    assert collected.problem is not None
    assert f"{folder}/a b" in collected.problem
    assert (folder / "a b" / "of-the-host").exists()


def test_another_who_looks_while_a_lease_is_dropped(vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Lease.take(vms, "vm-1")
    real, looks = Path.rmdir, iter(range(2))

    def rmdir(folder: Path) -> None:
        for _ in looks:
            (folder / "owner.lock").touch()
            break
        real(folder)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    lease.drop()
    assert list(vms.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTEMPTY])
def test_what_comes_and_goes_while_a_folder_is_removed(
    vms: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (abandoned(vms) / "jobs").mkdir()
    real, failures = shutil.rmtree, [OSError(number, "a process of the VM was still ending")]

    def rmtree(folder: Path) -> None:
        if failures:
            raise failures.pop()
        real(folder)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert collect(vms) == [Collected("vm-left")]
    assert list(vms.iterdir()) == []


def test_a_process_that_has_ended_is_no_process() -> None:
    process = subprocess.Popen(["true"])
    record = ProcessRecord.of(process.pid)
    process.wait()
    assert record is not None
    assert ProcessRecord.of(process.pid) is None
    assert not record.end()


def test_a_process_name_may_hold_anything(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to(Path("/bin/sleep").resolve())
    with subprocess.Popen([odd, "1000"]) as process:
        record = ProcessRecord.of(process.pid)
        ours = ProcessRecord.of(os.getpid())
        assert record is not None
        assert ours is not None
        assert record.start_time >= ours.start_time
        assert record.end()
