"""R5 and R6: VMs are released, and live as long as their sessions; who is refused has neither."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from cloche.verify.findings import adding, few, listed, times, vm_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.verify.findings import Finding
    from cloche.verify.observations import RunSeen, ScenarioSeen, Seen

_RELEASED = re.compile(r"Released session (\S+) with VM (\S+)")


def held_while_refused(scenario: ScenarioSeen) -> bool:
    """Whether a workflow was refused while every other was between the start of a step and its end."""
    refusals = [run.refused_at for run in scenario.runs if run.refused is not None]
    return bool(refusals) and all(
        any(step.began < refusal < step.ended for step in run.steps)
        for refusal in refusals
        for run in scenario.carried
    )


def released(scenario: ScenarioSeen, _seen: Seen) -> Iterator[Finding]:
    """Judge R5, by events and by what the provider was given back."""
    runs = scenario.carried
    late = [run.name for run in runs if not _released_in_time(run)]
    measured = f"{len(runs) - len(late)} of {times(len(runs), 'workflow')}" + adding(late, "not ")
    yield "R5", "the session is released once, after the last step", measured, bool(runs) and not late
    kept = [run.name for run in runs if not _given_back(run, scenario)]
    measured = f"{len(runs) - len(kept)} of {times(len(runs), 'VM')}" + adding(kept, "not ")
    yield "R5", "the provider takes the VM back after the last step", measured, bool(runs) and not kept
    answering = [call.vm_id for call in scenario.calls if call.kind == "release" and call.answers]
    gone = [call for call in scenario.calls if call.kind == "release" and call.answers is False]
    measured = f"{times(len(gone), 'guest')} gone" + adding(answering, "still answering: ")
    yield "R5", "a released guest answers nobody", measured, bool(gone) and not answering
    left = few(scenario.left) if scenario.left else "nothing"
    yield "R5", "nothing is left when all have ended", left, not scenario.left
    if scenario.recycling:
        ids = [session.vm_id for run in runs for session in run.sessions]
        resets = [call for call in scenario.calls if call.kind == "reset" and call.error is None]
        again = len(ids) > 1 and len(set(ids)) == 1 and bool(resets)
        ended = [f"{vm.vm_id} ({vm.why})" for vm in scenario.ended]
        measured = f"{listed(set(ids))}, {times(len(resets), 'reset')}" + adding(ended, "ended: ")
        yield "R5", "a released VM is reset and offered again, by the same id", measured, again


def _released_in_time(run: RunSeen) -> bool:
    return len(run.releases) == 1 and run.last_step < run.releases[0].tick < run.ended


def _given_back(run: RunSeen, scenario: ScenarioSeen) -> bool:
    vm_id = vm_id_of(run)
    return any(
        call.kind in {"release", "reset"} and call.vm_id == vm_id and call.began > run.last_step > 0
        for call in scenario.calls
    )


# R6: session and VM, one life


def one_life(scenario: ScenarioSeen, _seen: Seen) -> Iterator[Finding]:
    """Judge R6, by events, log and provider, and by what became of those refused."""
    runs = scenario.carried
    sessions = [session for run in runs for session in run.sessions]
    releases = [release for run in runs for release in run.releases]
    pairs = {(session.session_id, session.vm_id) for session in sessions}
    ended = {(release.session_id, release.vm_id) for release in releases}
    measured = f"{len(pairs & ended)} of {times(len(pairs), 'session')}"
    yield "R6", "a session ends with the VM it began with", measured, bool(pairs) and pairs == ended
    lines = {match.groups() for line in scenario.log if (match := _RELEASED.fullmatch(line))}
    yield "R6", "the log tells the same", times(len(lines), "line"), bool(lines) and lines == pairs
    made = [session for session in sessions if _made_before(session.vm_id, session.tick, scenario)]
    measured = f"{len(made)} of {times(len(sessions), 'session')}"
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
    measured = f"{len(told)} of {times(len(sessions), 'session')}"
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


def _one_at_a_time(runs: Sequence[RunSeen]) -> Iterator[Finding]:
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
        f"{times(len(overlaps), 'overlap')}" + adding(overlaps),
        not overlaps,
    )


def _refusals(scenario: ScenarioSeen) -> Iterator[Finding]:
    """What only a scenario with more workflows than places has to show."""
    if len(scenario.runs) <= scenario.limit or scenario.recycling:
        return
    refused = [run for run in scenario.runs if run.refused is not None]
    wanted = len(scenario.runs) - scenario.limit
    measured = f"{len(refused)} refused with a limit of {scenario.limit}"
    named = all(f"limit of {scenario.limit}" in (run.refused or "") for run in refused)
    yield "R6", "beyond the limit a session is refused, naming it", measured, len(refused) == wanted and named
    got = [run.name for run in refused if run.sessions or run.steps]
    measured = f"{times(len(got), 'refused workflow')} with a session or a step" + adding(got)
    yield "R6", "who is refused has neither session nor VM", measured, bool(refused) and not got
    held = held_while_refused(scenario)
    measured = "the others were running a step" if held else "not all others were running a step"
    yield "R6", "it is refused while the others run", measured, held
    good = [run.name for run in scenario.carried if run.conclusion == "success"]
    measured = f"{len(good)} of {len(scenario.carried)} finished with success"
    yield "R6", "those that run are not disturbed", measured, len(good) == scenario.limit
