"""Observations as a provider gives them that keeps every rule: what tests then change one thing of."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cloche.verify.observations import (
    ProviderCall,
    ReleaseSeen,
    RunSeen,
    Said,
    ScenarioSeen,
    Seen,
    SessionSeen,
    StepSeen,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HOST_BOOT_ID = "host-boot-id"
HOST_UPTIME = 9000.0
NOW = 1_700_000_000.0


class Scene:
    """Writes down what happens, tick by tick."""

    def __init__(self, name: str, first_tick: int) -> None:
        self.name = name
        self.tick = itertools.count(first_tick)
        self.calls: list[ProviderCall] = []
        self.log: list[str] = []
        self.runs: dict[str, RunSeen] = {}

    def provide(self, kind: str, vm: str, boot_id: str) -> None:
        call = ProviderCall("reset", next(self.tick), next(self.tick), 0.1, vm_id=vm, boot_id=boot_id)
        if kind == "release":
            call = replace(call, kind="release", boot_id="", answers=False)
        self.calls.append(replace(call, kind="allocate") if kind == "allocate" else call)

    def begin(self, name: str, vm: str, boot_id: str) -> None:
        session = SessionSeen(f"sess-{name}", vm, boot_id, "restored", 0.1, next(self.tick))
        self.runs[name] = RunSeen(name, f"nonce-{name}", 0, sessions=(session,))
        self.log.append(f"Allocated VM {vm} in 84 ms for session sess-{name}")

    def start_step(self, name: str) -> None:
        run = self.runs[name]
        number = run.planned + 1
        step = StepSeen(number, f"{name}-word-{number}", next(self.tick), 0, "", None, True, NOW, NOW)
        self.runs[name] = replace(run, planned=number, steps=(*run.steps, step))

    def end_step(self, name: str, *, did: tuple[str, ...] = ()) -> None:
        run = self.runs[name]
        session, step = run.sessions[0], run.steps[-1]
        said = Said(
            boot_id=session.boot_id,
            hostname=session.vm_id,
            uptime=10.0 + step.number,
            clock=NOW + 0.5,
            chain=tuple(one.challenge for one in run.steps),
            alive=True,
            kernel_mark=f"cloche-verify-{run.nonce}",
            did=("kernel-mark", *did) if step.number == 1 else did,
        )
        step = replace(
            step,
            ended=next(self.tick),
            vm_id=session.vm_id,
            boot_id=session.boot_id,
            ended_at=NOW + 1,
            host_uptime=HOST_UPTIME,
            said=said,
            nonces=(run.nonce,),
        )
        self.runs[name] = replace(run, steps=(*run.steps[:-1], step))

    def step(self, name: str, **said: tuple[str, ...]) -> None:
        self.start_step(name)
        self.end_step(name, **said)

    def end(self, name: str) -> None:
        run = self.runs[name]
        session = run.sessions[0]
        release = ReleaseSeen(session.session_id, session.vm_id, next(self.tick))
        self.runs[name] = replace(run, releases=(release,), conclusion="success", ended=next(self.tick))
        self.log.append(f"Released session {session.session_id} with VM {session.vm_id}")

    def seen(self, *, limit: int, recycling: bool = False) -> ScenarioSeen:
        return ScenarioSeen(
            self.name,
            f"scenario {self.name}",
            limit,
            recycling,
            runs=tuple(self.runs.values()),
            calls=tuple(self.calls),
            ended=(),
            left=(),
            log=tuple(self.log),
            seconds=1.0,
        )


def t1() -> ScenarioSeen:
    scene = Scene("T1", 0)
    scene.provide("allocate", "vm-1", "boot-1")
    scene.begin("T1", "vm-1", "boot-1")
    for _ in range(5):
        scene.step("T1")
    scene.provide("release", "vm-1", "")
    scene.end("T1")
    return scene.seen(limit=1)


def t2() -> ScenarioSeen:
    scene = Scene("T2", 1000)
    names = {"T2-1": 5, "T2-2": 3, "T2-3": 7}
    for name in names:
        scene.provide("allocate", f"vm-{name}", f"boot-{name}")
    for name in names:
        scene.begin(name, f"vm-{name}", f"boot-{name}")
    for number in range(7):
        for name in (name for name, count in names.items() if number < count):
            scene.step(name)
    for name in names:
        scene.provide("release", f"vm-{name}", "")
        scene.end(name)
    return scene.seen(limit=3)


def t3() -> ScenarioSeen:
    scene = Scene("T3", 2000)
    scene.provide("allocate", "vm-3", "boot-3a")
    scene.begin("T3-1", "vm-3", "boot-3a")
    scene.step("T3-1")
    scene.step("T3-1", did=("root-file", "clock"))
    scene.end("T3-1")
    scene.provide("reset", "vm-3", "boot-3b")
    scene.begin("T3-2", "vm-3", "boot-3b")
    scene.step("T3-2")
    scene.step("T3-2")
    scene.end("T3-2")
    scene.provide("release", "vm-3", "")
    return scene.seen(limit=1, recycling=True)


def t4() -> ScenarioSeen:
    scene = Scene("T4", 3000)
    names = ("T4-1", "T4-2")
    for name in names:
        scene.provide("allocate", f"vm-{name}", f"boot-{name}")
        scene.begin(name, f"vm-{name}", f"boot-{name}")
    for name in names:
        scene.start_step(name)
    refused = RunSeen("T4-3", "nonce-T4-3", 1, refused="the limit of 2 concurrent sessions is reached")
    scene.runs["T4-3"] = replace(refused, refused_at=next(scene.tick))
    for name in names:
        scene.end_step(name)
    for name in names:
        scene.provide("release", f"vm-{name}", "")
        scene.end(name)
    return scene.seen(limit=2)


def good() -> Seen:
    """What an honest provider is seen to do."""
    return Seen("qemu", own_kernel=True, host_boot_id=HOST_BOOT_ID, scenarios=(t1(), t2(), t3(), t4()))


def with_scenario(seen: Seen, name: str, change: Callable[[ScenarioSeen], ScenarioSeen]) -> Seen:
    scenarios = tuple(change(one) if one.id == name else one for one in seen.scenarios)
    return replace(seen, scenarios=scenarios)


def with_run(seen: Seen, name: str, change: Callable[[RunSeen], RunSeen]) -> Seen:
    def changed(scenario: ScenarioSeen) -> ScenarioSeen:
        return replace(
            scenario, runs=tuple(change(run) if run.name == name else run for run in scenario.runs)
        )

    return with_scenario(seen, name.partition("-")[0], changed)


def with_step(seen: Seen, run: str, number: int, change: Callable[[StepSeen], StepSeen]) -> Seen:
    def changed(one: RunSeen) -> RunSeen:
        return replace(one, steps=tuple(change(s) if s.number == number else s for s in one.steps))

    return with_run(seen, run, changed)


def with_said(seen: Seen, run: str, number: int, **said: Any) -> Seen:
    return with_step(seen, run, number, lambda step: replace(step, said=replace(step.said, **said)))
