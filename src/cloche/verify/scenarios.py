"""The scenarios, carried out: real executor, real session manager, real pool, this machine's provider."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.verify.judge import judge
from cloche.verify.observations import Seen
from cloche.verify.probe import StepPlan, WorkflowPlan
from cloche.verify.report import Report
from cloche.verify.rules_lives import held_while_refused
from cloche.verify.stage import NO_KERNEL, Plan, Progress, Setting, Stage
from cloche.verify.watching import Meeting, Ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from cloche.verify.observations import ScenarioSeen
    from cloche.verify.probe import Duty
    from cloche.verify.stage import State
    from cloche.vm.provider import VmProvider

T1_STEPS = 5
T2_STEPS = (5, 3, 7)
T4_LIMIT = 2
HOLDS = (1.0, 4.0, 15.0)
"""Seconds that T4's workflows stay, tried in turn: a busy machine needs longer to see them side by side."""
_HOLDING_STEP = 2


async def verify(
    make_provider: Callable[[], VmProvider], plan: Plan, tell: Callable[[Progress], None] = lambda _: None
) -> Report:
    """Carry out T1 to T4, each with a provider of its own, and judge what was seen.

    ``tell`` hears how it goes. Raises ProviderError or ImageError when a scenario gets no VM at all: then there is
    nothing to judge.
    """
    return await _Verification(make_provider, plan, tell).run()


class _Verification:
    """What the scenarios of one verification share."""

    def __init__(
        self, make_provider: Callable[[], VmProvider], plan: Plan, tell: Callable[[Progress], None]
    ) -> None:
        self._make_provider = make_provider
        self._plan = plan
        self._tell = tell
        self._ticks = Ticks()
        self._nonces: list[str] = []
        self._provider: VmProvider | None = None
        self._host_boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()

    async def run(self) -> Report:
        at, started = time.time(), time.monotonic()
        scenarios: list[ScenarioSeen] = []
        known = {"T1": self._t1, "T2": self._t2, "T3": self._t3, "T4": self._t4}
        for name in self._plan.scenarios:
            scenario = await known[name]()
            scenarios.append(scenario)
            seen = self._seen(scenarios)
            checks = judge(seen)
            good = all(check.passed for check in checks if check.scenario == scenario.id)
            self._tell(_progress(scenario, "passed" if good else "failed"))
        return Report(
            at=at,
            seconds=time.monotonic() - started,
            machine=dict(self._plan.machine),
            notes=self._provider.notes if self._provider else (),  # it knows best when it has made VMs
            seen=seen,
            checks=checks,
        )

    def _seen(self, scenarios: Sequence[ScenarioSeen]) -> Seen:
        name = self._provider.name if self._provider else ""
        return Seen(name, name not in NO_KERNEL, self._host_boot_id, tuple(scenarios))

    def _stage(self, setting: Setting) -> Stage:
        provider = self._provider = self._make_provider()
        self._nonces += [workflow.nonce for workflow in setting.workflows]
        return Stage(setting, provider, self._plan, ticks=self._ticks, nonces=self._nonces, tell=self._tell)

    async def _t1(self) -> ScenarioSeen:
        workflows = (_workflow("T1", ["look"] * T1_STEPS),)
        async with self._stage(Setting("T1", f"one workflow of {T1_STEPS} steps", 1, workflows)) as stage:
            await stage.run(workflows[0])
            return await stage.close()

    async def _t2(self) -> ScenarioSeen:
        count = self._plan.workflows
        steps = [T2_STEPS[number % len(T2_STEPS)] for number in range(count)]
        workflows = tuple(_workflow(f"T2-{n}", ["look"] * length) for n, length in enumerate(steps, 1))
        title = f"{count} workflows at once, of {', '.join(map(str, steps))} steps"
        async with self._stage(Setting("T2", title, count, workflows, together=count)) as stage:
            await _all(map(stage.run, workflows))
            return await stage.close()

    async def _t3(self) -> ScenarioSeen:
        workflows = (_workflow("T3-1", ["look", "soil"]), _workflow("T3-2", ["search", "look"]))
        title = "release and reuse: the second workflow gets the VM of the first, clean"
        async with self._stage(Setting("T3", title, 1, workflows, recycling=True)) as stage:
            for workflow in workflows:
                await stage.run(workflow)
            return await stage.close()

    async def _t4(self) -> ScenarioSeen:
        for hold in HOLDS:
            seen = await self._t4_once(hold)
            if held_while_refused(seen):
                break
        return seen

    async def _t4_once(self, hold: float) -> ScenarioSeen:
        held = [_workflow(f"T4-{n}", ["look", "hold", "look"], hold) for n in range(1, T4_LIMIT + 1)]
        third = _workflow(f"T4-{T4_LIMIT + 1}", ["look"])
        title = f"a limit of {T4_LIMIT} sessions: the third is refused, the active ones go on"
        setting = Setting("T4", title, T4_LIMIT, (*held, third), together=T4_LIMIT)
        holding = Meeting(T4_LIMIT)

        async def run_held(stage: Stage, workflow: WorkflowPlan) -> None:
            try:
                await stage.run(workflow, lambda step: holding.arrive() if step == _HOLDING_STEP else None)
            finally:
                holding.dissolve()

        async def run_third(stage: Stage) -> None:
            await holding.wait()
            await stage.run(third)

        async with self._stage(setting) as stage:
            await _all([*(run_held(stage, workflow) for workflow in held), run_third(stage)])
            return await stage.close()


def _workflow(name: str, duties: Sequence[Duty], hold: float = 0.0) -> WorkflowPlan:
    return WorkflowPlan(name, tuple(StepPlan(duty, hold) for duty in duties))


def _progress(scenario: ScenarioSeen, state: State) -> Progress:
    steps = sum(len(run.steps) for run in scenario.runs)
    planned = sum(run.planned for run in scenario.runs if run.refused is None)
    return Progress(scenario.id, scenario.title, state, steps, planned, len(scenario.allocations))


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Carry out all side by side; when one raises the others are cancelled and waited for, and it goes on."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
