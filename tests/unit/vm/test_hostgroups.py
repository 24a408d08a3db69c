"""Groups on the host, in a folder that stands for the hierarchy; tests/vm has the kernel's own."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from cloche.vm import hostgroups
from cloche.vm.hostgroups import LEAF, Delegation, HostGroups, find, limits

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


class Hierarchy:
    """A group ``/ours`` with what the kernel puts into one, and what /proc would tell of us."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.told = folder / "told"
        self.ours = self.root / "ours"
        self.group(self.root)
        self.group(self.ours)
        self.say("0::/ours")
        self.good = Delegation(self.ours, ("cpu", "memory", "pids"))

    @staticmethod
    def group(path: Path, **files: str) -> None:
        path.mkdir(exist_ok=True)
        known = {
            "cgroup.controllers": "cpuset cpu io memory pids",
            "cgroup.subtree_control": "cpu memory pids",
            "cgroup.procs": "",
            "cgroup.type": "domain",
        }
        for name, text in {**known, **files}.items():
            (path / name).write_text(text + "\n")

    def say(self, line: str) -> None:
        self.told.write_text(f"1:name=systemd:/elsewhere\n{line}\n")

    def find(self) -> Delegation:
        return find(self.root, self.told)


@pytest.fixture
def hierarchy(tmp_path: Path) -> Hierarchy:
    return Hierarchy(tmp_path)


def test_a_group_that_is_ours_is_found(hierarchy: Hierarchy) -> None:
    assert hierarchy.find() == hierarchy.good


def test_a_vm_gets_its_size_and_what_qemu_needs(hierarchy: Hierarchy) -> None:
    group = HostGroups(hierarchy.find()).make("vm-1", cpus=2, memory=2 * GIB, emulated=False)
    assert group is not None
    assert group.path == hierarchy.ours / "vm-1"
    assert {path.name: path.read_text() for path in group.path.iterdir()} == {
        "memory.max": str(2 * GIB + GIB // 2),
        "cpu.max": "250000 100000",
        "pids.max": "130",
    }
    group.add(1234)
    assert (group.path / "cgroup.procs").read_text() == "1234"
    (group.path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.oom_kills == 2


def test_emulation_takes_more_memory() -> None:
    assert int(limits(1, GIB, emulated=True)["memory.max"]) - GIB > GIB


def test_our_own_processes_make_room_for_the_vms(hierarchy: Hierarchy) -> None:
    hierarchy.group(hierarchy.ours, **{"cgroup.subtree_control": "", "cgroup.procs": str(os.getpid())})
    assert hierarchy.find() == hierarchy.good
    moved = hierarchy.ours / LEAF / "cgroup.procs"
    assert HostGroups(hierarchy.find()).make("vm-1", cpus=1, memory=GIB, emulated=True) is not None
    assert moved.read_text() == str(os.getpid())
    assert (hierarchy.ours / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_once_moved_the_group_above_is_the_one(hierarchy: Hierarchy) -> None:
    hierarchy.group(hierarchy.ours / LEAF)
    hierarchy.say(f"0::/ours/{LEAF}")
    assert hierarchy.find() == hierarchy.good


def test_others_in_our_group_are_left_where_they_are(hierarchy: Hierarchy) -> None:
    hierarchy.group(hierarchy.ours, **{"cgroup.subtree_control": "", "cgroup.procs": f"{os.getppid()}"})
    assert hierarchy.find() == Delegation(None, problem="other processes share the group we run in, /ours")


def test_the_root_of_a_hierarchy_may_hold_processes(hierarchy: Hierarchy) -> None:
    hierarchy.group(hierarchy.ours, **{"cgroup.subtree_control": "", "cgroup.procs": "1"})
    (hierarchy.ours / "cgroup.type").unlink()
    assert HostGroups(hierarchy.find()).make("vm-1", cpus=1, memory=GIB, emulated=False) is not None
    assert not (hierarchy.ours / LEAF).exists()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0::/../outside", "cannot be seen from here"),
        ("8:pids:/ours", "cannot be seen from here"),
        ("0::/gone", "gone/cgroup.controllers: No such file or directory"),
    ],
)
def test_a_group_that_cannot_be_seen(hierarchy: Hierarchy, line: str, problem: str) -> None:
    hierarchy.say(line)
    found = hierarchy.find()
    assert found.group is None
    assert problem in found.problem


def test_a_hybrid_host_has_none(hierarchy: Hierarchy) -> None:
    (hierarchy.root / "cgroup.controllers").unlink()
    assert "cgroup v2" in hierarchy.find().problem


def test_what_is_not_delegated_is_not_bounded(hierarchy: Hierarchy) -> None:
    hierarchy.group(hierarchy.ours, **{"cgroup.controllers": "memory pids"})
    assert hierarchy.find() == Delegation(hierarchy.ours, ("memory", "pids"))
    group = HostGroups(hierarchy.find()).make("vm-1", cpus=2, memory=GIB, emulated=False)
    assert group is not None
    assert sorted(path.name for path in group.path.iterdir()) == ["memory.max", "pids.max"]


def test_a_group_without_controllers_bounds_nothing(hierarchy: Hierarchy) -> None:
    hierarchy.group(hierarchy.ours, **{"cgroup.controllers": "io"})
    assert hierarchy.find().problem == "no controller of cpu, memory, pids is delegated to /ours"


@pytest.mark.parametrize("name", ["cgroup.procs", "cgroup.subtree_control"])
def test_a_group_that_is_not_ours_to_divide(
    hierarchy: Hierarchy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: path.name != name)
    assert hierarchy.find().problem == "the group we run in, /ours, is not ours to divide"


def test_where_there_is_none_nothing_is_done() -> None:
    assert HostGroups(Delegation(None, problem="no")).make("vm-1", cpus=1, memory=GIB, emulated=False) is None


def test_a_kernel_that_refuses_is_asked_once_and_told_of(
    hierarchy: Hierarchy, caplog: pytest.LogCaptureFixture
) -> None:
    groups = HostGroups(Delegation(hierarchy.root / "gone", ("pids",)))
    with caplog.at_level(logging.WARNING):
        assert groups.make("vm-1", cpus=1, memory=GIB, emulated=False) is None
        assert groups.make("vm-2", cpus=1, memory=GIB, emulated=False) is None
    assert len(caplog.records) == 1


def test_a_process_that_cannot_be_moved_goes_on(
    hierarchy: Hierarchy, caplog: pytest.LogCaptureFixture
) -> None:
    hostgroups.HostGroup(hierarchy.root / "gone").add(1)
    assert "Process 1 has no limits on this host" in caplog.text


def test_removing_is_told_of_only_when_it_fails(
    hierarchy: Hierarchy, caplog: pytest.LogCaptureFixture
) -> None:
    empty = hierarchy.root / "empty"
    empty.mkdir()
    for _ in range(2):
        hostgroups.HostGroup(empty).remove()
    assert caplog.text == ""
    hostgroups.HostGroup(hierarchy.ours).remove()
    assert "could not be removed" in caplog.text
