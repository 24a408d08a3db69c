"""R1 to R3: one allocation for each workflow, the same VM for all its steps, and no other meanwhile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloche.verify.findings import adding, boot_id_of, few, listed, times, vm_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloche.verify.findings import Finding
    from cloche.verify.observations import ProviderCall, RunSeen, ScenarioSeen, Seen, StepSeen

_ALLOCATED = re.compile(r"Allocated VM (\S+) in .+ for session (\S+)")


def allocated_once(scenario: ScenarioSeen, _seen: Seen) -> Iterator[Finding]:
    """Judge R1, by sessions, by the provider's calls and by the log."""
    runs = scenario.carried
    sessions = [session for run in runs for session in run.sessions]
    each = [len(run.sessions) for run in runs]
    told = f"{times(len(sessions), 'session')} for {times(len(runs), 'workflow')}"
    yield "R1", "each workflow gets one session", told, bool(runs) and all(count == 1 for count in each)
    made, replaced = len(scenario.allocations), len(scenario.ended)
    wanted = 1 if scenario.recycling else len(runs)
    asked = f"the provider was asked for {times(made, 'VM')}, {wanted} expected"
    asked += f", {replaced} replaced" if replaced else ""
    yield "R1", "the provider makes one VM for each, and no other", asked, wanted <= made <= wanted + replaced
    ids = {call.vm_id for call in scenario.allocations} - {vm.vm_id for vm in scenario.ended}
    ours = {session.vm_id for session in sessions}
    claim = "sessions have the VMs that the provider made"
    yield "R1", claim, listed(ours), ids <= ours <= {call.vm_id for call in scenario.allocations}
    lines = [match.groups() for line in scenario.log if (match := _ALLOCATED.fullmatch(line))]
    told_of = sorted((session.vm_id, session.session_id) for session in sessions)
    yield (
        "R1",
        "the log tells one allocation for each session",
        times(len(lines), "line"),
        sorted(lines) == told_of,
    )


# R2: the same VM for all steps


def same_vm(scenario: ScenarioSeen, _seen: Seen) -> Iterator[Finding]:
    """Judge R2, by what every step was told and by what it read itself."""
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

    def all_steps(claim: str, holds: Callable[[RunSeen, StepSeen], bool]) -> Finding:
        failing = [f"{run.name} step {step.number}" for run, step in steps if not holds(run, step)]
        fine = len(steps) - len(failing)
        measured = f"{fine} of {times(len(steps), 'step')}" + (f"; not {few(failing)}" if failing else "")
        return "R2", claim, measured, bool(steps) and not failing

    yield all_steps("the steps' VM id is the session's", lambda run, step: step.vm_id == vm_id_of(run))
    yield all_steps(
        "the boot id read in the step is the session's",
        lambda run, step: step.said.boot_id == step.boot_id == boot_id_of(run),
    )
    yield all_steps(
        "the guest calls itself by the VM's id (hostname)",
        lambda run, step: step.said.hostname == vm_id_of(run),
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


def no_allocation_meanwhile(scenario: ScenarioSeen, _seen: Seen) -> Iterator[Finding]:
    """Judge R3, by the provider's calls while steps ran and by the guests they saw."""
    runs = [run for run in scenario.carried if run.steps]
    calls = [
        f"{call.kind} {call.vm_id}"
        for call in scenario.calls
        if call.kind in {"allocate", "reset"} and any(_during(call, run) for run in runs)
    ]
    steps = sum(len(run.steps) for run in runs)
    measured = f"{times(len(calls), 'call')} during {times(steps, 'step')}" + adding(calls)
    yield "R3", "the provider is asked for no VM once steps run", measured, bool(runs) and not calls
    known = {call.boot_id for call in scenario.calls if call.kind in {"allocate", "reset"}}
    fresh = sorted({boot_id for run in runs for boot_id in run.boot_ids} - known)
    measured = f"{times(len(fresh), 'guest')} that the provider did not hand over" + adding(fresh)
    yield "R3", "steps see no guest that was not there before the first of them", measured, not fresh


def _during(call: ProviderCall, run: RunSeen) -> bool:
    return call.began < run.last_step and call.ended > run.first_step
