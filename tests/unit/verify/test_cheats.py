"""``verify`` over providers that cheat: it fails, and names the requirement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.verify import Plan, verify
from cloche.vm.fake import FakeProvider
from tests.unit.verify import cheats

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.verify import Report
    from cloche.vm.provider import VmProvider


async def failing(make: Callable[[], VmProvider]) -> tuple[Report, set[tuple[str, str]]]:
    report = await verify(make, Plan())
    return report, {(check.requirement, check.scenario) for check in report.checks if not check.passed}


async def test_an_honest_provider_passes() -> None:
    report, bad = await failing(FakeProvider)
    assert report.passed, bad
    assert bad == set()


async def test_a_vm_for_each_step() -> None:
    report, bad = await failing(cheats.VmPerStep)
    assert {("R2", "T1"), ("R3", "T1"), ("R2", "T2"), ("R3", "T2")} <= bad
    assert {"R2", "R3"} <= set(report.failed)


async def test_one_vm_under_several_ids() -> None:
    report, bad = await failing(cheats.OneForAll)
    assert {("R4", "T2"), ("R4", "T4")} <= bad
    assert "R4" in report.failed
    shared = [
        check.measured for check in report.checks if check.claim == "no other workflow saw the same boot id"
    ]
    assert any("the same in T2-1 and T2-2" in measured for measured in shared)


async def test_a_dirty_vm() -> None:
    report, bad = await failing(cheats.KeepsFiles)
    assert ("R4", "T3") in bad
    assert any("the first one's nonce was found" in check.measured for check in report.checks)


async def test_a_vm_that_was_not_reset_at_all() -> None:
    report, bad = await failing(cheats.NoReset)
    assert bad == {("R4", "T3"), ("R5", "T3")}
    assert any(
        "boot id is that of another VM, or of its own past" in check.measured for check in report.checks
    )


async def test_an_id_that_the_guest_does_not_confirm() -> None:
    report, bad = await failing(cheats.OtherName)
    assert {("R2", "T1"), ("R2", "T2")} <= bad
    named = [check for check in report.checks if "hostname" in check.claim and not check.passed]
    assert named


async def test_a_vm_that_is_never_ended() -> None:
    _, bad = await failing(cheats.NeverEnds)
    assert ("R5", "T1") in bad
