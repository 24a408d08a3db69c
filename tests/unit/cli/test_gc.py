from __future__ import annotations

import asyncio
import stat
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from cloche.cli.gc import gc
from cloche.config import runs_dir, sessions_dir, vms_dir
from cloche.store.runs import CutFacts, RunFacts, RunStore
from cloche.vm.leases import Lease

if TYPE_CHECKING:
    from pathlib import Path

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))


def test_nothing_to_clear() -> None:
    result = CliRunner().invoke(gc)
    assert (result.exit_code, result.output) == (0, "nothing to clear\n")


def test_what_a_killed_run_left_is_cleared_and_told() -> None:
    left = vms_dir() / "vm-0123456789ab"
    left.mkdir(parents=True)
    (left / "disk").write_bytes(b"x")
    sessions_dir().mkdir()
    (sessions_dir() / "sess-0123456789ab.json").write_text('{"workflow": "CI", "pid": 7, "since": 0}')
    with Lease.take(vms_dir(), "vm-alive"):
        result = CliRunner().invoke(gc)
        assert (vms_dir() / "vm-alive").is_dir()
    assert result.exit_code == 0
    assert result.output == (
        "cleared session sess-0123456789ab of workflow 'CI': process 7 is gone\nremoved VM vm-0123456789ab\n"
    )
    assert not left.exists()
    assert list(sessions_dir().iterdir()) == []


def test_what_cannot_be_cleared_is_said_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    left = vms_dir() / "vm-stuck"
    left.mkdir(parents=True)
    monkeypatch.setattr("cloche.vm.leases._mounts_below", lambda folder: [f"{folder}/root"])
    result = CliRunner().invoke(gc)
    assert result.exit_code == 1
    assert "cannot clear VM vm-stuck" in result.output
    assert "mounted" in result.output


def test_the_folders_are_private() -> None:
    CliRunner().invoke(gc)
    for folder in (sessions_dir(), sessions_dir().parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_run_that_was_kept_long_enough_goes() -> None:
    for name, began in (("run-old", 1.0), ("run-new", time.time())):
        store = RunStore(runs_dir(), keep=DAY, size=DAY, clock=[began].pop)
        writer = store.begin(RunFacts(name, "CI", "ci.yml", "/", began))
        facts = CutFacts(0, began, "job", None, "job", 1, "", "")

        async def take(folder: Path, facts: CutFacts = facts) -> CutFacts:
            folder.mkdir()
            return facts

        asyncio.run(writer.cut(facts, {}, take))
        writer.close("failure", keep=True)
    assert CliRunner().invoke(gc).output == "removed run run-old\n"
    assert [path.name for path in runs_dir().iterdir()] == ["run-new"]
