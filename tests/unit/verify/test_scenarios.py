"""Scenarios over providers on a bad day: what is raised, what is noted, what is put back."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import pytest

from cloche.errors import GuestLost, ProviderError
from cloche.verify import Plan, Progress, verify
from cloche.vm.fake import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.vm.provider import VmProvider, VmSpec


def failing_at(*numbers: int) -> Callable[[], VmProvider]:
    """Providers that cannot make these VMs of all that are asked for, counted over all scenarios."""
    count = itertools.count(1)

    async def refuse(_spec: VmSpec, _number: int) -> None:
        if next(count) in numbers:
            raise ProviderError("no room for a VM", hint="make room")

    return lambda: FakeProvider(on_allocate=refuse)


async def test_without_any_vm_the_error_goes_to_the_caller() -> None:
    with pytest.raises(ProviderError, match="no room for a VM"):
        await verify(failing_at(1), Plan())


async def test_a_vm_that_could_not_be_made_later_is_a_finding() -> None:
    report = await verify(failing_at(3), Plan(scenarios=("T1", "T2")))
    bad = [check for check in report.checks if not check.passed]
    assert {check.scenario for check in bad} == {"T2"}
    assert any(check.requirement == "R1" for check in bad)
    assert any("no room for a VM" in check.measured for check in bad)
    others = [run for run in report.seen.scenarios[1].runs if run.error is None]
    assert [run.conclusion for run in others] == ["success", "success"], (
        "they do not wait for who will not come"
    )


async def test_a_guest_that_dies_is_a_finding_and_is_cleared() -> None:
    vms: list[FakeProvider] = []

    async def lose(_spec: object, call: object) -> int:
        raise GuestLost("the guest is gone")

    def make() -> FakeProvider:
        vms.append(FakeProvider(handler=lose))
        return vms[-1]

    report = await verify(make, Plan(scenarios=("T1",)))
    assert any("the guest is gone" in check.measured for check in report.checks if not check.passed)
    assert report.seen.scenarios[0].left == ()
    assert vms[0]._vms == {}


async def test_progress_is_told_to_its_end() -> None:
    told: list[Progress] = []
    await verify(FakeProvider, Plan(workflows=2, scenarios=("T1", "T2")), told.append)
    ends = [(one.scenario, one.state, one.steps, one.planned) for one in told if one.state != "running"]
    assert ends == [("T1", "passed", 5, 5), ("T2", "passed", 8, 8)]
    assert [one.steps for one in told if one.scenario == "T1"] == [0, 1, 2, 3, 4, 5, 5]


async def test_the_log_is_left_as_it_was() -> None:
    logger = logging.getLogger("cloche")
    before = (logger.level, logger.propagate, list(logger.handlers))
    report = await verify(FakeProvider, Plan(scenarios=("T1",)))
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    kinds = [line.partition(" ")[0] for line in report.seen.scenarios[0].log]
    assert kinds == ["Allocated", "Starting", *["Executing"] * 5, "Workflow", "Released"]
