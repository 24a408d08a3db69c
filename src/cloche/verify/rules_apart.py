"""R4: several workflows have several VMs, and none finds anything of another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.verify.findings import adding, few, listed, times
from cloche.verify.probe import CLOCK_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.verify.findings import Finding
    from cloche.verify.observations import ScenarioSeen, Seen, StepSeen

CLOCK_TOLERANCE = 5.0
"""Seconds that a guest's clock may be off from the host's, before or after the step that read it."""
UPTIME_GAP = 3.0
"""Seconds by which a kernel's uptime differs at least from another's, unless it is the same kernel."""


def apart(scenario: ScenarioSeen, seen: Seen) -> Iterator[Finding]:
    """Judge R4, by all that tells one guest from another."""
    runs = scenario.carried
    if not scenario.recycling:
        ids = {session.vm_id for run in runs for session in run.sessions}
        yield (
            "R4",
            "each workflow has a VM id of its own",
            f"{listed(ids)} for {times(len(runs), 'workflow')}",
            len(ids) == len(runs),
        )
    yield from _boot_ids_apart(scenario, seen)
    yield from _no_foreign_nonce(scenario, seen)
    if seen.own_kernel:
        yield from _kernels_apart(scenario)
    if not scenario.recycling and len(runs) > 1:
        yield from _side_by_side(scenario)
    if scenario.recycling:
        yield from _clean(scenario, seen)
        yield from nothing_dirty(scenario)


def _boot_ids_apart(scenario: ScenarioSeen, seen: Seen) -> Iterator[Finding]:
    runs = scenario.carried
    distinct = {boot_id for run in runs for boot_id in run.boot_ids}
    shared = [
        f"{run.name} and {other.name}"
        for run in runs
        for other in seen.runs
        if other is not run and other.name != run.name and run.boot_ids & other.boot_ids
    ]
    measured = f"{times(len(distinct), 'boot id')} in {times(len(runs), 'workflow')}"
    measured += f"; the same in {few(shared)}" if shared else ""
    yield "R4", "no other workflow saw the same boot id", measured, bool(distinct) and not shared
    own = seen.host_boot_id not in distinct
    yield "R4", "no guest has the host's boot id", "none" if own else seen.host_boot_id, own


def _no_foreign_nonce(scenario: ScenarioSeen, seen: Seen) -> Iterator[Finding]:
    names = {run.nonce: run.name for run in seen.runs}
    met = [
        f"{run.name} step {step.number} shows {names.get(nonce, 'an earlier one')}'s"
        for run in scenario.carried
        for step in run.steps
        for nonce in step.nonces
        if nonce != run.nonce
    ]
    blind = [run.name for run in scenario.carried if not any(run.nonce in step.nonces for step in run.steps)]
    measured = f"{len(met)} of {times(len(names), 'nonce')} where they should not be" + adding(met)
    measured += f"; {few(blind)} did not even show its own" if blind else ""
    yield "R4", "no workflow comes upon another's secret nonce", measured, not met and not blind


def _kernels_apart(scenario: ScenarioSeen) -> Iterator[Finding]:
    """Where guests are to have kernels of their own: neither the host's nor one another's."""
    gaps = [
        abs(step.host_uptime - (step.said.uptime or step.host_uptime))
        for run in scenario.carried
        for step in run.steps
    ]
    least = min(gaps, default=0.0)
    measured = f"at least {least:.0f} s apart from the host's"
    yield "R4", "the guests' uptime is not the host's", measured, least > UPTIME_GAP
    marked = [run for run in scenario.carried if any("kernel-mark" in step.said.did for step in run.steps)]
    if not marked:
        return  # the image has no sudo, or the guest no such setting: nothing was tried
    wrong = [
        f"{run.name} step {step.number}"
        for run in marked
        for step in run.steps
        if step.said.kernel_mark != f"cloche-verify-{run.nonce}"
    ]
    measured = f"{times(len(marked), 'kernel')} marked" + adding(wrong)
    yield "R4", "each workflow finds its own mark in its kernel", measured, not wrong


def _side_by_side(scenario: ScenarioSeen) -> Iterator[Finding]:
    runs = scenario.carried
    created = [session.tick for run in runs for session in run.sessions]
    released = [release.tick for run in runs for release in run.releases]
    together = bool(created) and bool(released) and max(created) < min(released) and len(created) == len(runs)
    measured = (
        f"{len(created)} sessions, {'all before' if together else 'not all before'} the first was released"
    )
    yield "R4", "they lived at the same time", measured, together


def nothing_dirty(scenario: ScenarioSeen) -> Iterator[Finding]:
    """What the pool, which looks at VMs before it offers them, thought of this provider's."""
    dirty = [f"{vm.vm_id}: {vm.detail}" for vm in scenario.ended if vm.why == "dirty"]
    if scenario.recycling:
        measured = f"{len(dirty)} found dirty and kept back" + adding(dirty)
        yield "R4", "the pool finds each VM clean before it offers it", measured, not dirty


def _clean(scenario: ScenarioSeen, seen: Seen) -> Iterator[Finding]:
    """The second workflow of a reused VM finds nothing of the first one's."""
    if len(scenario.carried) < 2:  # noqa: PLR2004 - the one who soils and the one who searches
        yield "R4", "a reused VM is clean", "there was no second workflow", False
        return
    first, second = scenario.carried[:2]
    did = sorted({trace for step in first.steps for trace in step.said.did})
    found = sorted({trace for step in second.steps for trace in step.said.found})
    shows = any(first.nonce in step.nonces for step in second.steps)
    measured = f"{times(len(did), 'kind')} of traces left ({', '.join(did)})" + adding(found, "found again: ")
    measured += "; the first one's nonce was found" if shows else ""
    yield "R4", "a reused VM is clean", measured, bool(did) and bool(second.steps) and not found and not shows
    offsets = [offset for step in second.steps if (offset := _clock_offset(step)) is not None]
    if "clock" in did:
        worst = max(offsets, default=float(CLOCK_SHIFT))
        yield (
            "R4",
            "the clock, moved by a day, is right again",
            f"off by {worst:.1f} s",
            worst <= CLOCK_TOLERANCE,
        )
    elif offsets and seen.own_kernel:
        yield "R4", "the clock is right", f"off by {max(offsets):.1f} s", max(offsets) <= CLOCK_TOLERANCE


def _clock_offset(step: StepSeen) -> float | None:
    """By how many seconds a step's clock lies outside of the time in which the host saw it run."""
    if step.said.clock is None:
        return None
    return max(step.started_at - step.said.clock, step.said.clock - step.ended_at, 0.0)
