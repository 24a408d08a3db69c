"""Judging: what was seen in, findings out. Nothing here asks anybody anything.

Every finding is about one requirement in one scenario, and says what was measured. A requirement holds when all
findings about it do. Evidence that is missing where it should be there counts against whoever should have given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record
from cloche.verify.findings import few
from cloche.verify.rules_apart import apart, nothing_dirty
from cloche.verify.rules_lives import one_life, released
from cloche.verify.rules_steps import allocated_once, no_allocation_meanwhile, same_vm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloche.verify.findings import Finding
    from cloche.verify.observations import ScenarioSeen, Seen

REQUIREMENTS = {
    "R1": "a VM is allocated once per workflow file",
    "R2": "all steps of a workflow use the same VM",
    "R3": "no allocation happens inside the step loop",
    "R4": "several workflows have several VMs, one each, and no step of one reaches another's",
    "R5": "a VM is released when its workflow completes",
    "R6": "the session's life is bound to the VM's life",
}
"""The compliance matrix: what each requirement says."""


@record
class Check:
    """A finding: what should be so, what was measured, whether that is enough."""

    requirement: str
    scenario: str
    claim: str
    measured: str
    passed: bool


def judge(seen: Seen) -> tuple[Check, ...]:
    """Return all findings, by scenario, then by requirement."""
    return tuple(
        Check(requirement, scenario.id, claim, measured, passed)
        for scenario in seen.scenarios
        for requirement, claim, measured, passed in _findings(scenario, seen)
    )


def requirement_holds(checks: Iterable[Check], requirement: str) -> bool:
    """Whether there are findings about a requirement, and all are good."""
    about = [check.passed for check in checks if check.requirement == requirement]
    return bool(about) and all(about)


def _findings(scenario: ScenarioSeen, seen: Seen) -> Iterator[Finding]:
    if not any(run.sessions for run in scenario.runs):
        errors = sorted({run.error or run.refused or "no error" for run in scenario.runs})
        yield "R1", "each workflow gets a VM", f"none did: {few(errors)}", False
        yield from nothing_dirty(scenario)
        return
    for rule in (allocated_once, same_vm, no_allocation_meanwhile, apart, released, one_life):
        yield from rule(scenario, seen)
