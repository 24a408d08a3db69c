"""What the agent sees of its guest, here of this host: its own descendants, its own files."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from cloche.guest import inspection
from cloche.guest.roots import RootPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from .agents import AgentProcess

    StartAgent = Callable[..., AgentProcess]


def look(folder: Path, *inits: int, **plan: bool) -> dict[str, list[str]]:
    return inspection.look(RootPlan(lower="/", folder=str(folder), **plan), inits)  # type: ignore[arg-type] # flags


def test_nothing_changed_is_nothing_different(tmp_path: Path) -> None:
    assert look(tmp_path)["files"] == look(tmp_path)["files"] == []
    assert look(tmp_path)["environment"] == look(tmp_path)["environment"]
    assert look(tmp_path)["mounts"] == look(tmp_path)["mounts"] != []


def test_files_are_seen_with_their_sizes_and_modes(tmp_path: Path) -> None:
    (tmp_path / "1/upper").mkdir(parents=True)
    (tmp_path / "1/upper/left").write_text("some", encoding="ascii")
    (tmp_path / "1/upper/left").chmod(0o640)
    (tmp_path / "1/link").symlink_to("/etc")
    files = look(tmp_path)["files"]
    assert [line.split()[0] for line in files] == ["1", "1/link", "1/upper", "1/upper/left"]
    assert files[-1] == f"1/upper/left 100640 {os.getuid()} 4"


def test_a_process_and_its_children_are_seen(tmp_path: Path) -> None:
    before = look(tmp_path)["processes"]
    with subprocess.Popen(["sh", "-c", "sleep 1000 & read x; kill $!"], stdin=subprocess.PIPE) as shell:
        until = time.monotonic() + 20
        while "sleep" not in (now := look(tmp_path)["processes"]):
            assert time.monotonic() < until
        shell.communicate(b"\n")
    assert sorted(now) == sorted([*before, "sh", "sleep"])


def test_a_listening_socket_is_seen(tmp_path: Path) -> None:
    def tcp() -> list[str]:
        return [line for line in look(tmp_path)["sockets"] if line.startswith("guest: TCP inuse ")]

    def count() -> int:
        return int(tcp()[0].split()[-1])

    before = count()
    with socket.create_server(("127.0.0.1", 0)):
        assert count() > before
    assert "guest: lo" in look(tmp_path)["interfaces"]


def test_an_environment_variable_is_seen_and_its_value_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(tmp_path)["environment"]
    monkeypatch.setenv("LEFT_BEHIND", "hunter2")
    (line,) = set(look(tmp_path)["environment"]) - set(before)
    assert line.startswith("LEFT_BEHIND ")
    assert "hunter2" not in line


def test_where_the_kernel_is_the_hosts_only_job_roots_are_looked_at(tmp_path: Path) -> None:
    found = look(tmp_path, os.getpid(), shared_kernel=True, network=False)
    assert found["sockets"] == found["interfaces"] == []
    assert found["mounts"]
    assert all(line.startswith("root 1: ") for line in found["mounts"])


def test_a_root_whose_init_is_gone_shows_nothing(tmp_path: Path) -> None:
    assert look(tmp_path, 2**22, shared_kernel=True)["mounts"] == []


def test_much_left_behind_is_cut_short(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:03}").touch()
    (tmp_path / ("x" * 250)).mkdir()
    (tmp_path / ("x" * 250) / ("y" * 250)).touch()
    files = look(tmp_path)["files"]
    assert len(files) == 257
    assert "and more" in files
    assert max(map(len, files)) <= 400


def test_the_agent_says_who_it_is_only_once_it_is_somebody(start_agent: StartAgent) -> None:
    agent = start_agent()
    nameless = agent.request({"t": "inspect"})
    assert nameless["boot_id"] == ""
    agent.request({"t": "adopt", "hostname": "h", "machine_id": "m", "time": 1.0})
    agent.request({"t": "job.open", "job": "j"})
    found = agent.request({"t": "inspect"})
    assert found["boot_id"]
    assert found["hostname"] == os.uname().nodename
    assert found["entropy"] != nameless["entropy"]
    state = found["state"]
    assert isinstance(state, dict)
    assert state["jobs"] == ["j"]
    assert state.keys() == {
        "jobs", "processes", "mounts", "files", "environment", "sockets", "interfaces",
    }  # fmt: skip
