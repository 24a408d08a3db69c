"""Judging: what was seen in, findings out. Nothing here asks anybody anything.

Every finding is about one requirement in one scenario, and says what was measured. A requirement holds when all
findings about it do. Evidence that is missing where it should be there counts against whoever should have given it.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from cloche.records import record
from cloche.verify.probe import CLOCK_SHIFT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cloche.verify.observations import ProviderCall, RunSeen, ScenarioSeen, Seen, StepSeen

REQUIREMENTS = {
    "R1": "a VM is allocated once per workflow file",
    "R2": "all steps of a workflow use the same VM",
    "R3": "no allocation happens inside the step loop",
    "R4": "several workflows have several VMs, one each, and no step of one reaches another's",
    "R5": "a VM is released when its workflow completes",
    "R6": "the session's life is bound to the VM's life",
}
"""The compliance matrix: what each requirement says."""
CLOCK_TOLERANCE = 5.0
"""Seconds that a guest's clock may be off from the host's, before or after the step that read it."""
UPTIME_GAP = 3.0
"""Seconds by which a kernel's uptime differs at least from another's, unless it is the same kernel."""
_ALLOCATED = re.compile(r"Allocated VM (\S+) in .+ for session (\S+)")
_RELEASED = re.compile(r"Released session (\S+) with VM (\S+)")


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
    return tuple(check for scenario in seen.scenarios for check in _scenario(scenario, seen))


def requirement_holds(checks: Iterable[Check], requirement: str) -> bool:
    """Whether there are findings about a requirement, and all are good."""
    about = [check.passed for check in checks if check.requirement == requirement]
    return bool(about) and all(about)


def held_while_refused(scenario: ScenarioSeen) -> bool:
    """Whether a workflow was refused while every other was between the start of a step and its end."""
    refusals = [run.refused_at for run in scenario.runs if run.refused is not None]
    return bool(refusals) and all(
        any(step.began < refusal < step.ended for step in run.steps)
        for refusal in refusals
        for run in scenario.carried
    )


def _scenario(scenario: ScenarioSeen, seen: Seen) -> Iterator[Check]:
    def check(requirement: str, claim: str, measured: str, passed: bool) -> Check:  # noqa: FBT001 - the finding itself
        return Check(requirement, scenario.id, claim, measured, passed)

    if not any(run.sessions for run in scenario.runs):
        errors = sorted({run.error or run.refused or "no error" for run in scenario.runs})
        yield check("R1", "each workflow gets a VM", f"none did: {_few(errors)}", passed=False)
        for requirement, claim, measured, passed in _nothing_dirty(scenario):
            yield check(requirement, claim, measured, passed)
        return
    for judged in (_r1, _r2, _r3, _r4, _r5, _r6):
        for requirement, claim, measured, passed in judged(scenario, seen):
            yield check(requirement, claim, measured, passed)


_Finding = tuple[str, str, str, bool]


# R1: one allocation each


def _r1(scenario: ScenarioSeen, _seen: Seen) -> Iterator[_Finding]:
    runs = scenario.carried
    sessions = [session for run in runs for session in run.sessions]
    each = [len(run.sessions) for run in runs]
    told = f"{_times(len(sessions), 'session')} for {_times(len(runs), 'workflow')}"
    yield "R1", "each workflow gets one session", told, bool(runs) and all(count == 1 for count in each)
    made, replaced = len(scenario.allocations), len(scenario.ended)
    wanted = 1 if scenario.recycling else len(runs)
    asked = f"the provider was asked for {_times(made, 'VM')}, {wanted} expected"
    asked += f", {replaced} replaced" if replaced else ""
    yield "R1", "the provider makes one VM for each, and no other", asked, wanted <= made <= wanted + replaced
    ids = {call.vm_id for call in scenario.allocations} - {vm.vm_id for vm in scenario.ended}
    ours = {session.vm_id for session in sessions}
    claim = "sessions have the VMs that the provider made"
    yield "R1", claim, _ids(ours), ids <= ours <= {call.vm_id for call in scenario.allocations}
    lines = [match.groups() for line in scenario.log if (match := _ALLOCATED.fullmatch(line))]
    told_of = sorted((session.vm_id, session.session_id) for session in sessions)
    yield (
        "R1",
        "the log tells one allocation for each session",
        _times(len(lines), "line"),
        sorted(lines) == told_of,
    )


# R2: the same VM for all steps


def _r2(scenario: ScenarioSeen, _seen: Seen) -> Iterator[_Finding]:
    runs = scenario.carried
    steps = [(run, step) for run in runs for step in run.steps]
    planned = sum(run.planned for run in runs)
    problems = "".join(f"; {run.name}: {run.error}" for run in runs if run.error)
    good = sum(step.succeeded for _, step in steps)
    yield (
        "R2",
        "every step runs and succeeds",
        f"{good} of {planned} steps{problems}",
        good == planned == len(steps),
    )

    def all_steps(claim: str, holds: Callable[[RunSeen, StepSeen], bool]) -> _Finding:
        failing = [f"{run.name} step {step.number}" for run, step in steps if not holds(run, step)]
        fine = len(steps) - len(failing)
        measured = f"{fine} of {_times(len(steps), 'step')}" + (f"; not {_few(failing)}" if failing else "")
        return "R2", claim, measured, bool(steps) and not failing

    yield all_steps("the steps' VM id is the session's", lambda run, step: step.vm_id == _vm_id(run))
    yield all_steps(
        "the boot id read in the step is the session's",
        lambda run, step: step.said.boot_id == step.boot_id == _boot_id(run),
    )
    yield all_steps(
        "the guest calls itself by the VM's id (hostname)",
        lambda run, step: step.said.hostname == _vm_id(run),
    )
    yield all_steps("the step finds what the steps before it wrote", _continues)
    yield all_steps("the first step's process still runs", lambda _run, step: step.said.alive is True)
    if any(step.said.uptime is not None for _, step in steps):
        yield all_steps("the guest's uptime only grows", _grows)


def _continues(run: RunSeen, step: StepSeen) -> bool:
    earlier = [one.challenge for one in run.steps if one.number <= step.number]
    return list(step.said.chain) == earlier


def _grows(run: RunSeen, step: StepSeen) -> bool:
    earlier = [one.said.uptime for one in run.steps if one.number < step.number]
    own = step.said.uptime
    return own is not None and all(uptime is not None and uptime <= own for uptime in earlier)


# R3: none while steps run


def _r3(scenario: ScenarioSeen, _seen: Seen) -> Iterator[_Finding]:
    runs = [run for run in scenario.carried if run.steps]
    calls = [
        f"{call.kind} {call.vm_id}"
        for call in scenario.calls
        if call.kind in {"allocate", "reset"} and any(_during(call, run) for run in runs)
    ]
    steps = sum(len(run.steps) for run in runs)
    measured = f"{_times(len(calls), 'call')} during {_times(steps, 'step')}" + _told(calls)
    yield "R3", "the provider is asked for no VM once steps run", measured, bool(runs) and not calls
    known = {call.boot_id for call in scenario.calls if call.kind in {"allocate", "reset"}}
    fresh = sorted({boot_id for run in runs for boot_id in run.boot_ids} - known)
    measured = f"{_times(len(fresh), 'guest')} that the provider did not hand over" + _told(fresh)
    yield "R3", "steps see no guest that was not there before the first of them", measured, not fresh


def _during(call: ProviderCall, run: RunSeen) -> bool:
    return call.began < run.last_step and call.ended > run.first_step


# R4: one each, and apart


def _r4(scenario: ScenarioSeen, seen: Seen) -> Iterator[_Finding]:
    runs = scenario.carried
    if not scenario.recycling:
        ids = {session.vm_id for run in runs for session in run.sessions}
        yield (
            "R4",
            "each workflow has a VM id of its own",
            f"{_ids(ids)} for {_times(len(runs), 'workflow')}",
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
        yield from _nothing_dirty(scenario)


def _boot_ids_apart(scenario: ScenarioSeen, seen: Seen) -> Iterator[_Finding]:
    runs = scenario.carried
    distinct = {boot_id for run in runs for boot_id in run.boot_ids}
    shared = [
        f"{run.name} and {other.name}"
        for run in runs
        for other in seen.runs
        if other is not run and other.name != run.name and run.boot_ids & other.boot_ids
    ]
    measured = f"{_times(len(distinct), 'boot id')} in {_times(len(runs), 'workflow')}"
    measured += f"; the same in {_few(shared)}" if shared else ""
    yield "R4", "no other workflow saw the same boot id", measured, bool(distinct) and not shared
    own = seen.host_boot_id not in distinct
    yield "R4", "no guest has the host's boot id", "none" if own else seen.host_boot_id, own


def _no_foreign_nonce(scenario: ScenarioSeen, seen: Seen) -> Iterator[_Finding]:
    names = {run.nonce: run.name for run in seen.runs}
    met = [
        f"{run.name} step {step.number} shows {names.get(nonce, 'an earlier one')}'s"
        for run in scenario.carried
        for step in run.steps
        for nonce in step.nonces
        if nonce != run.nonce
    ]
    blind = [run.name for run in scenario.carried if not any(run.nonce in step.nonces for step in run.steps)]
    measured = f"{len(met)} of {_times(len(names), 'nonce')} where they should not be" + _told(met)
    measured += f"; {_few(blind)} did not even show its own" if blind else ""
    yield "R4", "no workflow comes upon another's secret nonce", measured, not met and not blind


def _kernels_apart(scenario: ScenarioSeen) -> Iterator[_Finding]:
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
    measured = f"{_times(len(marked), 'kernel')} marked" + _told(wrong)
    yield "R4", "each workflow finds its own mark in its kernel", measured, not wrong


def _side_by_side(scenario: ScenarioSeen) -> Iterator[_Finding]:
    runs = scenario.carried
    created = [session.tick for run in runs for session in run.sessions]
    released = [release.tick for run in runs for release in run.releases]
    together = bool(created) and bool(released) and max(created) < min(released) and len(created) == len(runs)
    measured = (
        f"{len(created)} sessions, {'all before' if together else 'not all before'} the first was released"
    )
    yield "R4", "they lived at the same time", measured, together


def _nothing_dirty(scenario: ScenarioSeen) -> Iterator[_Finding]:
    """What the pool, which looks at VMs before it offers them, thought of this provider's."""
    dirty = [f"{vm.vm_id}: {vm.detail}" for vm in scenario.ended if vm.why == "dirty"]
    if scenario.recycling:
        measured = f"{len(dirty)} found dirty and kept back" + _told(dirty)
        yield "R4", "the pool finds each VM clean before it offers it", measured, not dirty


def _clean(scenario: ScenarioSeen, seen: Seen) -> Iterator[_Finding]:
    """The second workflow of a reused VM finds nothing of the first one's."""
    if len(scenario.carried) < 2:  # noqa: PLR2004 - the one who soils and the one who searches
        yield "R4", "a reused VM is clean", "there was no second workflow", False
        return
    first, second = scenario.carried[:2]
    did = sorted({trace for step in first.steps for trace in step.said.did})
    found = sorted({trace for step in second.steps for trace in step.said.found})
    shows = any(first.nonce in step.nonces for step in second.steps)
    measured = f"{_times(len(did), 'kind')} of traces left ({', '.join(did)})" + _told(found, "found again: ")
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


# R5: released in the end


def _r5(scenario: ScenarioSeen, _seen: Seen) -> Iterator[_Finding]:
    runs = scenario.carried
    late = [run.name for run in runs if not _released_in_time(run)]
    measured = f"{len(runs) - len(late)} of {_times(len(runs), 'workflow')}" + _told(late, "not ")
    yield "R5", "the session is released once, after the last step", measured, bool(runs) and not late
    kept = [run.name for run in runs if not _given_back(run, scenario)]
    measured = f"{len(runs) - len(kept)} of {_times(len(runs), 'VM')}" + _told(kept, "not ")
    yield "R5", "the provider takes the VM back after the last step", measured, bool(runs) and not kept
    answering = [call.vm_id for call in scenario.calls if call.kind == "release" and call.answers]
    gone = [call for call in scenario.calls if call.kind == "release" and call.answers is False]
    measured = f"{_times(len(gone), 'guest')} gone" + _told(answering, "still answering: ")
    yield "R5", "a released guest answers nobody", measured, bool(gone) and not answering
    left = _few(scenario.left) if scenario.left else "nothing"
    yield "R5", "nothing is left when all have ended", left, not scenario.left
    if scenario.recycling:
        ids = [session.vm_id for run in runs for session in run.sessions]
        resets = [call for call in scenario.calls if call.kind == "reset" and call.error is None]
        again = len(ids) > 1 and len(set(ids)) == 1 and bool(resets)
        ended = [f"{vm.vm_id} ({vm.why})" for vm in scenario.ended]
        measured = f"{_ids(set(ids))}, {_times(len(resets), 'reset')}" + _told(ended, "ended: ")
        yield "R5", "a released VM is reset and offered again, by the same id", measured, again


def _released_in_time(run: RunSeen) -> bool:
    return len(run.releases) == 1 and run.last_step < run.releases[0].tick < run.ended


def _given_back(run: RunSeen, scenario: ScenarioSeen) -> bool:
    vm_id = _vm_id(run)
    return any(
        call.kind in {"release", "reset"} and call.vm_id == vm_id and call.began > run.last_step > 0
        for call in scenario.calls
    )


# R6: session and VM, one life


def _r6(scenario: ScenarioSeen, _seen: Seen) -> Iterator[_Finding]:
    runs = scenario.carried
    sessions = [session for run in runs for session in run.sessions]
    releases = [release for run in runs for release in run.releases]
    pairs = {(session.session_id, session.vm_id) for session in sessions}
    ended = {(release.session_id, release.vm_id) for release in releases}
    measured = f"{len(pairs & ended)} of {_times(len(pairs), 'session')}"
    yield "R6", "a session ends with the VM it began with", measured, bool(pairs) and pairs == ended
    lines = {match.groups() for line in scenario.log if (match := _RELEASED.fullmatch(line))}
    yield "R6", "the log tells the same", _times(len(lines), "line"), bool(lines) and lines == pairs
    made = [session for session in sessions if _made_before(session.vm_id, session.tick, scenario)]
    measured = f"{len(made)} of {_times(len(sessions), 'session')}"
    yield (
        "R6",
        "a session's VM is made before the session",
        measured,
        bool(sessions) and len(made) == len(sessions),
    )
    handed = {
        (call.vm_id, call.boot_id) for call in scenario.calls if call.kind != "release" and not call.error
    }
    told = [session for session in sessions if (session.vm_id, session.boot_id) in handed]
    measured = f"{len(told)} of {_times(len(sessions), 'session')}"
    yield (
        "R6",
        "a session tells the boot id of the guest that the provider handed over",
        measured,
        told == sessions,
    )
    yield from _one_at_a_time(runs)
    yield from _refusals(scenario)


def _made_before(vm_id: str, tick: int, scenario: ScenarioSeen) -> bool:
    return any(call.vm_id == vm_id and call.ended < tick for call in scenario.allocations)


def _one_at_a_time(runs: Sequence[RunSeen]) -> Iterator[_Finding]:
    lives = sorted(
        (session.vm_id, session.tick, run.releases[0].tick if run.releases else run.ended)
        for run in runs
        for session in run.sessions
    )
    overlaps = [
        vm_id
        for (vm_id, _, until), (other, since, _) in itertools.pairwise(lives)
        if vm_id == other and since < until
    ]
    yield (
        "R6",
        "a VM has one session at a time",
        f"{_times(len(overlaps), 'overlap')}" + _told(overlaps),
        not overlaps,
    )


def _refusals(scenario: ScenarioSeen) -> Iterator[_Finding]:
    """What only a scenario with more workflows than places has to show."""
    if len(scenario.runs) <= scenario.limit or scenario.recycling:
        return
    refused = [run for run in scenario.runs if run.refused is not None]
    wanted = len(scenario.runs) - scenario.limit
    measured = f"{len(refused)} refused with a limit of {scenario.limit}"
    named = all(f"limit of {scenario.limit}" in (run.refused or "") for run in refused)
    yield "R6", "beyond the limit a session is refused, naming it", measured, len(refused) == wanted and named
    got = [run.name for run in refused if run.sessions or run.steps]
    measured = f"{_times(len(got), 'refused workflow')} with a session or a step" + _told(got)
    yield "R6", "who is refused has neither session nor VM", measured, bool(refused) and not got
    held = held_while_refused(scenario)
    measured = "the others were running a step" if held else "not all others were running a step"
    yield "R6", "it is refused while the others run", measured, held
    good = [run.name for run in scenario.carried if run.conclusion == "success"]
    measured = f"{len(good)} of {len(scenario.carried)} finished with success"
    yield "R6", "those that run are not disturbed", measured, len(good) == scenario.limit


# Words


def _vm_id(run: RunSeen) -> str:
    return run.sessions[0].vm_id if run.sessions else ""


def _boot_id(run: RunSeen) -> str:
    return run.sessions[0].boot_id if run.sessions else ""


def _times(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ids(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids)) or "none"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown  # noqa: PLR2004 - a line of a table


def _told(names: Sequence[str], before: str = "") -> str:
    return f"; {before}{_few(names)}" if names else ""
