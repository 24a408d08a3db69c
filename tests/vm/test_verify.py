"""``cloche verify`` on real guests: an honest provider passes, one that shares a VM does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.config import data_dir
from cloche.image.store import ImageStore
from cloche.verify import Plan, verify
from cloche.vm.qemu.provider import QemuProvider
from tests.e2e.place import lacking, settled, traces
from tests.unit.verify.cheats import OneForAll

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.fixture
def qemu(tmp_path: Path) -> Callable[[], QemuProvider]:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    return lambda: QemuProvider(ImageStore(data_dir()), data_dir(), tmp_path / "vms")


async def test_every_workflow_gets_one_clean_vm(qemu: Callable[[], QemuProvider], tmp_path: Path) -> None:
    report = await verify(qemu, Plan())

    assert report.passed, [check for check in report.checks if not check.passed]
    assert report.seen.own_kernel
    t1, t2, t3, t4 = report.seen.scenarios
    assert [len(run.steps) for run in (*t1.runs, *t2.runs)] == [5, 5, 3, 7]
    assert all(len(run.boot_ids) == 1 for scenario in report.seen.scenarios for run in scenario.carried)
    first, second = (run.sessions[0] for run in t3.runs)
    assert first.vm_id == second.vm_id
    assert first.boot_id != second.boot_id
    did = {trace for step in t3.runs[0].steps for trace in step.said.did}
    assert did == {
        *("kernel-mark", "tmp-file", "root-file", "job-environment", "system-environment"),
        *("mount", "process", "listener", "clock"),
    }
    assert [run.refused is not None for run in t4.runs] == [False, False, True]
    assert settled(lambda: traces(str(tmp_path)), within=2) == []


async def test_one_vm_under_two_ids_is_found_out(qemu: Callable[[], QemuProvider], tmp_path: Path) -> None:
    report = await verify(lambda: OneForAll(qemu()), Plan(workflows=2, scenarios=("T2",)))

    bad = {check.claim for check in report.checks if check.requirement == "R4" and not check.passed}
    assert "no other workflow saw the same boot id" in bad
    assert "each workflow finds its own mark in its kernel" in bad
    assert "FAILED" in report.verdict
    assert settled(lambda: traces(str(tmp_path)), within=2) == []
