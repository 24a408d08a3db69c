"""The daemon with real guests. What needs none: tests/e2e/test_daemon.py and test_kills.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.endings import chance
from tests.e2e.kills import Kills
from tests.e2e.place import Place, lacking, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
