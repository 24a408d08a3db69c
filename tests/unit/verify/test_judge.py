"""One thing changed of what an honest provider shows, and the requirement it breaks is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.verify.judge import REQUIREMENTS, judge, requirement_holds
from cloche.verify.observations import EndedSeen, ProviderCall, Said
from cloche.verify.rules_lives import held_while_refused
from tests.unit.verify.observed import (
    HOST_BOOT_ID,
    HOST_UPTIME,
    NOW,
    good,
    t4,
    with_run,
    with_said,
    with_scenario,
    with_step,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.verify.observations import ScenarioSeen, Seen


def failing(seen: Seen) -> set[tuple[str, str]]:
    return {(check.requirement, check.scenario) for check in judge(seen) if not check.passed}


def claims(seen: Seen) -> set[str]:
    return {check.claim for check in judge(seen) if not check.passed}


def test_an_honest_provider_passes() -> None:
    checks = judge(good())
    assert [check for check in checks if not check.passed] == []
    assert all(requirement_holds(checks, name) for name in REQUIREMENTS)
    for name in REQUIREMENTS:
        assert {check.scenario for check in checks if check.requirement == name} == {"T1", "T2", "T3", "T4"}


def test_nothing_seen_is_nothing_shown() -> None:
    checks = judge(replace(good(), scenarios=()))
    assert not any(requirement_holds(checks, name) for name in REQUIREMENTS)


@pytest.mark.parametrize("name", ["T1", "T2", "T3", "T4"])
def test_a_scenario_in_which_nothing_happened_fails(name: str) -> None:
    empty = with_scenario(good(), name, lambda one: replace(one, runs=(), calls=(), log=()))
    assert failing(empty) >= {("R1", name)}


def call(tick: int, kind: str = "allocate") -> ProviderCall:
    made = ProviderCall("allocate", tick, tick, 0.1, vm_id="vm-more", boot_id="boot-more")
    return replace(made, kind="reset") if kind == "reset" else made


def more_calls(name: str, *calls: ProviderCall) -> Callable[[], Seen]:
    return lambda: with_scenario(good(), name, lambda one: replace(one, calls=(*one.calls, *calls)))


def without_calls(name: str, kind: str) -> Callable[[], Seen]:
    def without(scenario: ScenarioSeen) -> ScenarioSeen:
        return replace(scenario, calls=tuple(one for one in scenario.calls if one.kind != kind))

    return lambda: with_scenario(good(), name, without)


def answering() -> Seen:
    def change(scenario: ScenarioSeen) -> ScenarioSeen:
        calls = (replace(one, answers=True) if one.kind == "release" else one for one in scenario.calls)
        return replace(scenario, calls=tuple(calls))

    return with_scenario(good(), "T2", change)


def replaced(why: str) -> Seen:
    def change(scenario: ScenarioSeen) -> ScenarioSeen:
        ended = EndedSeen("vm-more", why, "its boot id is an old one")
        return replace(scenario, ended=(ended,), calls=(*scenario.calls, call(2001)))

    return with_scenario(good(), "T3", change)


def during(name: str) -> int:
    """A tick between the first and the last step of a scenario."""
    (scenario,) = (one for one in good().scenarios if one.id == name)
    return min(run.first_step for run in scenario.carried) + 1


BROKEN: dict[str, tuple[str, str, str, Callable[[], Seen]]] = {
    "a VM that nobody needs": (
        "R1",
        "T2",
        "the provider makes one VM for each, and no other",
        more_calls("T2", call(1)),
    ),
    "two sessions for a workflow": (
        "R1",
        "T1",
        "each workflow gets one session",
        lambda: with_run(good(), "T1", lambda run: replace(run, sessions=run.sessions * 2)),
    ),
    "no session": (
        "R1",
        "T1",
        "each workflow gets a VM",
        lambda: with_run(good(), "T1", lambda run: replace(run, sessions=())),
    ),
    "a log without allocation": (
        "R1",
        "T1",
        "the log tells one allocation for each session",
        lambda: with_scenario(good(), "T1", lambda one: replace(one, log=())),
    ),
    "a log of another VM": (
        "R1",
        "T1",
        "the log tells one allocation for each session",
        lambda: with_scenario(
            good(), "T1", lambda one: replace(one, log=("Allocated VM vm-x in 1 ms for session sess-T1",))
        ),
    ),
    "a step with another VM id": (
        "R2",
        "T1",
        "the steps' VM id is the session's",
        lambda: with_step(good(), "T1", 4, lambda step: replace(step, vm_id="vm-x")),
    ),
    "a step that reads another boot id": (
        "R2",
        "T2",
        "the boot id read in the step is the session's",
        lambda: with_said(good(), "T2-3", 6, boot_id="boot-x"),
    ),
    "a step that reads none": (
        "R2",
        "T2",
        "the boot id read in the step is the session's",
        lambda: with_said(good(), "T2-3", 1, boot_id=None),
    ),
    "an event of another boot id": (
        "R2",
        "T1",
        "the boot id read in the step is the session's",
        lambda: with_step(good(), "T1", 5, lambda step: replace(step, boot_id="boot-x")),
    ),
    "a guest with another name": (
        "R2",
        "T1",
        "the guest calls itself by the VM's id (hostname)",
        lambda: with_said(good(), "T1", 2, hostname="elsewhere"),
    ),
    "a guest without a name": (
        "R2",
        "T1",
        "the guest calls itself by the VM's id (hostname)",
        lambda: with_said(good(), "T1", 2, hostname=None),
    ),
    "a step that misses an earlier word": (
        "R2",
        "T1",
        "the step finds what the steps before it wrote",
        lambda: with_said(good(), "T1", 3, chain=("T1-word-1", "T1-word-3")),
    ),
    "a step that finds words in another order": (
        "R2",
        "T1",
        "the step finds what the steps before it wrote",
        lambda: with_said(good(), "T1", 2, chain=("T1-word-2", "T1-word-1")),
    ),
    "a process that is gone": (
        "R2",
        "T1",
        "the first step's process still runs",
        lambda: with_said(good(), "T1", 3, alive=False),
    ),
    "a process nobody tells of": (
        "R2",
        "T1",
        "the first step's process still runs",
        lambda: with_said(good(), "T1", 3, alive=None),
    ),
    "an uptime that goes back": (
        "R2",
        "T1",
        "the guest's uptime only grows",
        lambda: with_said(good(), "T1", 4, uptime=12.0),
    ),
    "a step that fails": (
        "R2",
        "T1",
        "every step runs and succeeds",
        lambda: with_step(good(), "T1", 4, lambda step: replace(step, succeeded=False)),
    ),
    "a step that never ran": (
        "R2",
        "T1",
        "every step runs and succeeds",
        lambda: with_run(good(), "T1", lambda run: replace(run, steps=run.steps[:-1])),
    ),
    "a session without a step": (
        "R3",
        "T1",
        "the provider is asked for no VM once steps run",
        lambda: with_run(good(), "T1", lambda run: replace(run, steps=())),
    ),
    "a session in which nobody read a boot id": (
        "R2",
        "T1",
        "the boot id read in the step is the session's",
        lambda: with_run(good(), "T1", lambda run: replace(run, steps=(), planned=0)),
    ),
    "a step that says nothing": (
        "R2",
        "T1",
        "the boot id read in the step is the session's",
        lambda: with_step(good(), "T1", 4, lambda step: replace(step, said=Said())),
    ),
    "an allocation while steps run": (
        "R3",
        "T1",
        "the provider is asked for no VM once steps run",
        more_calls("T1", call(during("T1"))),
    ),
    "a reset while steps run": (
        "R3",
        "T3",
        "the provider is asked for no VM once steps run",
        more_calls("T3", call(during("T3"), "reset")),
    ),
    "a guest that nobody handed over": (
        "R3",
        "T2",
        "steps see no guest that was not there before the first of them",
        lambda: with_said(good(), "T2-1", 2, boot_id="boot-x"),
    ),
    "a boot id shared by two": (
        "R4",
        "T2",
        "no other workflow saw the same boot id",
        lambda: with_said(good(), "T2-1", 2, boot_id="boot-T2-3"),
    ),
    "a boot id of an earlier scenario": (
        "R4",
        "T4",
        "no other workflow saw the same boot id",
        lambda: with_said(good(), "T4-1", 1, boot_id="boot-1"),
    ),
    "the host's boot id": (
        "R4",
        "T1",
        "no guest has the host's boot id",
        lambda: with_said(good(), "T1", 2, boot_id=HOST_BOOT_ID),
    ),
    "another's nonce": (
        "R4",
        "T2",
        "no workflow comes upon another's secret nonce",
        lambda: with_step(good(), "T2-2", 2, lambda step: replace(step, nonces=("nonce-T2-2", "nonce-T2-1"))),
    ),
    "an earlier scenario's nonce": (
        "R4",
        "T4",
        "no workflow comes upon another's secret nonce",
        lambda: with_step(good(), "T4-1", 1, lambda step: replace(step, nonces=("nonce-T4-1", "nonce-T1"))),
    ),
    "steps that do not show their own nonce": (
        "R4",
        "T4",
        "no workflow comes upon another's secret nonce",
        lambda: with_step(good(), "T4-1", 1, lambda step: replace(step, nonces=())),
    ),
    "another's mark in the kernel": (
        "R4",
        "T2",
        "each workflow finds its own mark in its kernel",
        lambda: with_said(good(), "T2-1", 5, kernel_mark="cloche-verify-nonce-T2-2"),
    ),
    "the host's uptime": (
        "R4",
        "T1",
        "the guests' uptime is not the host's",
        lambda: with_said(good(), "T1", 5, uptime=HOST_UPTIME),
    ),
    "one VM id for two": (
        "R4",
        "T2",
        "each workflow has a VM id of its own",
        lambda: with_run(
            good(), "T2-1", lambda run: replace(run, sessions=(replace(run.sessions[0], vm_id="vm-T2-2"),))
        ),
    ),
    "workflows one after another": (
        "R4",
        "T2",
        "they lived at the same time",
        lambda: with_run(
            good(), "T2-1", lambda run: replace(run, releases=(replace(run.releases[0], tick=1001),))
        ),
    ),
    "the former workflow's nonce in a reused VM": (
        "R4",
        "T3",
        "a reused VM is clean",
        lambda: with_step(good(), "T3-2", 1, lambda step: replace(step, nonces=("nonce-T3-2", "nonce-T3-1"))),
    ),
    "the former workflow's listener": (
        "R4",
        "T3",
        "a reused VM is clean",
        lambda: with_said(good(), "T3-2", 1, found=("listener",)),
    ),
    "a first workflow that left nothing": (
        "R4",
        "T3",
        "a reused VM is clean",
        lambda: with_said(with_said(good(), "T3-1", 2, did=()), "T3-1", 1, did=()),
    ),
    "a clock still off by a day": (
        "R4",
        "T3",
        "the clock, moved by a day, is right again",
        lambda: with_said(good(), "T3-2", 2, clock=NOW + 86400),
    ),
    "a clock that nobody reads any more": (
        "R4",
        "T3",
        "the clock, moved by a day, is right again",
        lambda: with_said(with_said(good(), "T3-2", 1, clock=None), "T3-2", 2, clock=None),
    ),
    "no second workflow": (
        "R4",
        "T3",
        "a reused VM is clean",
        lambda: with_scenario(good(), "T3", lambda one: replace(one, runs=one.runs[:1])),
    ),
    "no release": (
        "R5",
        "T1",
        "the session is released once, after the last step",
        lambda: with_run(good(), "T1", lambda run: replace(run, releases=())),
    ),
    "two releases": (
        "R5",
        "T1",
        "the session is released once, after the last step",
        lambda: with_run(good(), "T1", lambda run: replace(run, releases=run.releases * 2)),
    ),
    "a release before the last step": (
        "R5",
        "T1",
        "the session is released once, after the last step",
        lambda: with_run(
            good(), "T1", lambda run: replace(run, releases=(replace(run.releases[0], tick=5),))
        ),
    ),
    "a VM that the provider never got back": (
        "R5",
        "T1",
        "the provider takes the VM back after the last step",
        without_calls("T1", "release"),
    ),
    "guests that answer when they should be gone": ("R5", "T2", "a released guest answers nobody", answering),
    "something left": (
        "R5",
        "T4",
        "nothing is left when all have ended",
        lambda: with_scenario(good(), "T4", lambda one: replace(one, left=("VM vm-x",))),
    ),
    "no reset": (
        "R5",
        "T3",
        "a released VM is reset and offered again, by the same id",
        without_calls("T3", "reset"),
    ),
    "another VM for the second workflow": (
        "R5",
        "T3",
        "a released VM is reset and offered again, by the same id",
        lambda: with_run(
            good(), "T3-2", lambda run: replace(run, sessions=(replace(run.sessions[0], vm_id="vm-x"),))
        ),
    ),
    "a release of another VM": (
        "R6",
        "T1",
        "a session ends with the VM it began with",
        lambda: with_run(
            good(), "T1", lambda run: replace(run, releases=(replace(run.releases[0], vm_id="vm-x"),))
        ),
    ),
    "a session of a VM that nobody made": (
        "R6",
        "T1",
        "a session's VM is made before the session",
        without_calls("T1", "allocate"),
    ),
    "a session that tells another boot id": (
        "R6",
        "T1",
        "a session tells the boot id of the guest that the provider handed over",
        lambda: with_run(
            good(), "T1", lambda run: replace(run, sessions=(replace(run.sessions[0], boot_id="boot-x"),))
        ),
    ),
    "a log without releases": (
        "R6",
        "T1",
        "the log tells the same",
        lambda: with_scenario(good(), "T1", lambda one: replace(one, log=one.log[:1])),
    ),
    "two sessions of a VM at a time": (
        "R6",
        "T3",
        "a VM has one session at a time",
        lambda: with_run(
            good(), "T3-1", lambda run: replace(run, releases=(replace(run.releases[0], tick=2900),))
        ),
    ),
    "a third session that is not refused": (
        "R6",
        "T4",
        "beyond the limit a session is refused, naming it",
        lambda: with_run(good(), "T4-3", lambda run: replace(run, refused=None)),
    ),
    "a refusal for another reason": (
        "R6",
        "T4",
        "beyond the limit a session is refused, naming it",
        lambda: with_run(good(), "T4-3", lambda run: replace(run, refused="no room")),
    ),
    "a refused workflow that ran a step": (
        "R6",
        "T4",
        "who is refused has neither session nor VM",
        lambda: with_run(good(), "T4-3", lambda run: replace(run, steps=t4().runs[0].steps)),
    ),
    "a refused workflow that got a session": (
        "R6",
        "T4",
        "who is refused has neither session nor VM",
        lambda: with_run(good(), "T4-3", lambda run: replace(run, sessions=t4().runs[0].sessions)),
    ),
    "a session before its VM": (
        "R6",
        "T1",
        "a session's VM is made before the session",
        lambda: with_run(
            good(), "T1", lambda run: replace(run, sessions=(replace(run.sessions[0], tick=0),))
        ),
    ),
    "a session of another's VM": (
        "R6",
        "T4",
        "a session's VM is made before the session",
        lambda: with_run(
            good(), "T4-1", lambda run: replace(run, sessions=(replace(run.sessions[0], vm_id="vm-1"),))
        ),
    ),
    "a VM given back while steps ran": (
        "R5",
        "T1",
        "the provider takes the VM back after the last step",
        lambda: with_scenario(
            good(),
            "T1",
            lambda one: replace(
                one, calls=tuple(replace(c, began=5) if c.kind == "release" else c for c in one.calls)
            ),
        ),
    ),
    "another VM given back": (
        "R5",
        "T1",
        "the provider takes the VM back after the last step",
        lambda: with_scenario(
            good(),
            "T1",
            lambda one: replace(
                one, calls=tuple(replace(c, vm_id="vm-x") if c.kind == "release" else c for c in one.calls)
            ),
        ),
    ),
    "a refusal when nobody ran": (
        "R6",
        "T4",
        "it is refused while the others run",
        lambda: with_run(good(), "T4-3", lambda run: replace(run, refused_at=1)),
    ),
    "an active workflow that was disturbed": (
        "R6",
        "T4",
        "those that run are not disturbed",
        lambda: with_run(good(), "T4-1", lambda run: replace(run, conclusion="failure")),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_named(what: str) -> None:
    requirement, scenario, claim, broken = BROKEN[what]
    bad = {(check.requirement, check.scenario, check.claim) for check in judge(broken()) if not check.passed}
    assert (requirement, scenario, claim) in bad


def test_a_vm_that_the_pool_kept_back_as_dirty_counts_against_its_provider() -> None:
    assert failing(replaced("dirty")) == {("R4", "T3")}
    assert failing(replaced("age")) == set()


def test_a_scenario_without_any_vm_is_one_finding() -> None:
    seen = with_scenario(
        good(), "T3", lambda one: replace(one, runs=(replace(one.runs[0], sessions=(), error="gone"),))
    )
    (check,) = (check for check in judge(seen) if check.scenario == "T3" and not check.passed)
    assert (check.requirement, check.measured) == ("R1", "none did: gone")


def test_without_a_kernel_of_its_own_marks_and_uptime_say_nothing() -> None:
    seen = replace(good(), provider="sandbox", own_kernel=False)
    seen = with_said(with_said(seen, "T1", 5, uptime=HOST_UPTIME), "T1", 4, kernel_mark="core")
    assert failing(seen) == set()


def test_an_image_in_which_no_kernel_can_be_marked_is_not_blamed() -> None:
    seen = with_said(good(), "T1", 1, did=())
    for number in range(1, 6):
        seen = with_said(seen, "T1", number, kernel_mark="core")
    assert failing(seen) == set()


def test_a_release_while_others_run_their_steps_is_no_allocation() -> None:
    release = replace(call(during("T2")), kind="release", vm_id="vm-T2-2", answers=False)
    seen = with_scenario(good(), "T2", lambda one: replace(one, calls=(*one.calls, release)))
    assert failing(seen) == set()


def test_one_bad_finding_breaks_a_requirement() -> None:
    checks = judge(with_said(good(), "T1", 3, alive=False))
    assert [name for name in REQUIREMENTS if not requirement_holds(checks, name)] == ["R2"]


def saids() -> st.SearchStrategy[Said]:
    word = st.sampled_from(["", "boot-1", "vm-1", "cloche-verify-nonce-T1"]) | st.text(max_size=5)
    number = st.none() | st.floats(0, 2e9)
    words = st.lists(word, max_size=6).map(tuple)
    return st.builds(
        Said,
        boot_id=st.none() | word,
        hostname=st.none() | word,
        uptime=number,
        clock=number,
        chain=words,
        alive=st.none() | st.booleans(),
        kernel_mark=st.none() | word,
        did=words,
        found=words,
    )


@given(st.sampled_from(["T1", "T2-1", "T3-1", "T3-2", "T4-2"]), saids())
def test_whatever_a_step_says_is_judged_and_a_lie_does_not_pass(run: str, said: Said) -> None:
    seen = with_step(good(), run, 2 if run[:2] != "T4" else 1, lambda step: replace(step, said=said))
    bad = failing(seen)
    honest = seen == good()
    assert honest or ("R2", run[:2]) in bad


def test_workflows_that_never_ended_were_not_seen_to_live_at_the_same_time() -> None:
    def endless(scenario: ScenarioSeen) -> ScenarioSeen:
        return replace(scenario, runs=tuple(replace(run, releases=()) for run in scenario.runs))

    assert "they lived at the same time" in claims(with_scenario(good(), "T2", endless))


def test_a_workflow_that_never_began_did_not_live_at_the_same_time() -> None:
    assert "they lived at the same time" in claims(
        with_run(good(), "T2-1", lambda run: replace(run, sessions=()))
    )


def test_a_clock_that_nobody_moved_is_right_all_the_same() -> None:
    seen = with_said(good(), "T3-1", 2, did=("root-file",))
    assert failing(seen) == set()
    wrong = with_said(seen, "T3-2", 2, clock=NOW - 60)
    assert claims(wrong) == {"the clock is right"}
    sandbox = replace(wrong, provider="sandbox", own_kernel=False)
    assert failing(sandbox) == set(), "it is the host's"


def test_a_reset_that_failed_gives_nobody_a_guest() -> None:
    def change(scenario: ScenarioSeen) -> ScenarioSeen:
        calls = (
            replace(one, error="the guest is gone") if one.kind == "reset" else one for one in scenario.calls
        )
        return replace(scenario, calls=tuple(calls))

    bad = claims(with_scenario(good(), "T3", change))
    assert "a released VM is reset and offered again, by the same id" in bad
    assert "a session tells the boot id of the guest that the provider handed over" in bad


def test_errors_are_told_with_the_steps_that_never_ran() -> None:
    seen = with_run(good(), "T1", lambda run: replace(run, steps=(), error="the guest is gone"))
    assert any("T1: the guest is gone" in check.measured for check in judge(seen))


def test_a_refusal_counts_when_all_others_were_in_a_step() -> None:
    scenario = t4()
    assert held_while_refused(scenario)
    first, second, third = scenario.runs
    late = replace(third, refused_at=second.steps[0].ended + 1)
    assert not held_while_refused(replace(scenario, runs=(first, second, late)))
    assert not held_while_refused(replace(scenario, runs=(first, second)))
