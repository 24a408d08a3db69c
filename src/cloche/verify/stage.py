"""Where a scenario takes place: the real parts wired together, with our eyes on them."""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cloche.config import PoolSettings, Settings
from cloche.errors import ClocheError, ImageError, ProviderError, SessionLimitReached
from cloche.execution.executor import WorkflowExecutor
from cloche.execution.request import RunRequest
from cloche.pool import VmPool
from cloche.pool.events import VmEnded
from cloche.records import record
from cloche.session import SessionRegistry
from cloche.verify.observations import EndedSeen, ScenarioSeen
from cloche.verify.probe import workflow_text
from cloche.verify.watching import Meeting, MeetingManager, RunRecorder, WatchedProvider, log_lines
from cloche.vm.provider import VmSpec
from cloche.workflow.parse import parse_workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from cloche.pool.events import PoolEvent
    from cloche.verify.probe import WorkflowPlan
    from cloche.verify.watching import Ticks
    from cloche.vm.provider import VmProvider

NO_KERNEL = ("sandbox", "fake")
"""Providers that are known to make no guests with kernels of their own; every other is held to that."""
_UNREAL = ("fake",)
"""Providers without real processes, mounts and sockets."""
_ONE_AGAIN_AND_AGAIN = PoolSettings(min=1, max=1, target=1)
_DEFAULTS = Settings()

State = Literal["running", "passed", "failed"]


@record
class Plan:
    """What to verify with: ``workflows`` run at once in T2, each in a VM of this ``spec``.

    ``image_for`` is as in RunRequest. ``machine`` are facts for the report: a name and what to say. ``scenarios`` are
    the ids of those to carry out.
    """

    workflows: int = 3
    spec: VmSpec = field(default_factory=VmSpec)
    image_for: Callable[[Sequence[str]], str | None] = _DEFAULTS.image_for
    machine: Mapping[str, str] = field(default_factory=dict)
    scenarios: tuple[str, ...] = ("T1", "T2", "T3", "T4")


@record
class Progress:
    """How far a scenario is: ``steps`` of ``planned`` have started, in ``vms`` VMs so far."""

    scenario: str
    title: str
    state: State
    steps: int
    planned: int
    vms: int


@record
class Setting:
    """A scenario to be: as in ScenarioSeen, and how many workflows have sessions before the first step of any."""

    id: str
    title: str
    limit: int
    workflows: tuple[WorkflowPlan, ...]
    recycling: bool = False
    together: int = 1


class Stage:
    """A scenario under way. An async context manager: leaving it ends all its sessions and VMs."""

    def __init__(
        self,
        setting: Setting,
        provider: VmProvider,
        plan: Plan,
        *,
        ticks: Ticks,
        nonces: Sequence[str],
        tell: Callable[[Progress], None],
    ) -> None:
        """``nonces`` are those of all workflows so far, which is what is looked for."""
        self._setting = setting
        self._plan = plan
        self._ticks = ticks
        self._nonces = nonces
        self._tell = tell
        self._watched = WatchedProvider(provider, ticks)
        self._resources = AsyncExitStack()
        self._recorders: list[RunRecorder] = []
        self._ended: list[EndedSeen] = []
        self._log: list[str] = []
        self._started = time.monotonic()
        self._steps = 0

    async def __aenter__(self) -> Self:
        resources = self._resources
        self._log = resources.enter_context(log_lines())
        self._folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="cloche-verify-")))
        registry = SessionRegistry(self._folder / "sessions")
        meeting = Meeting(self._setting.together)
        self._manager = MeetingManager(self._make_pool(), registry, self._setting.limit, meeting)
        resources.push_async_exit(self._manager)
        self.tell("running")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.__aexit__(kind, error, trace)

    def _make_pool(self) -> VmPool:
        if self._setting.recycling:
            return VmPool(self._watched, settings=_ONE_AGAIN_AND_AGAIN, observer=self._hear)
        return VmPool(self._watched)

    def _hear(self, event: PoolEvent) -> None:
        if isinstance(event, VmEnded) and event.why != "closed":
            self._ended.append(EndedSeen(event.vm_id, event.why, event.detail))

    async def run(
        self,
        workflow: WorkflowPlan,
        on_step: Callable[[int], object] = lambda _number: None,
    ) -> None:
        """Carry a workflow out; ``on_step`` hears the number of each step that starts.

        Errors are noted, not raised; but for ProviderError and ImageError while no VM has been had at all.
        """

        def heard(number: int) -> None:
            self._steps += 1
            self.tell("running")
            on_step(number)

        recorder = RunRecorder(workflow, self._ticks, self._nonces, heard)
        self._recorders.append(recorder)
        try:
            await self._execute(workflow, recorder)
        except SessionLimitReached as refusal:
            recorder.refuse(refusal.message)
        except (ProviderError, ImageError) as error:
            if not self._watched.calls or not any(call.error is None for call in self._watched.calls):
                raise
            recorder.error = error.message
        except ClocheError as error:
            recorder.error = error.message

    async def _execute(self, workflow: WorkflowPlan, recorder: RunRecorder) -> None:
        name = self._watched.name
        text = workflow_text(workflow, own_kernel=name not in NO_KERNEL, real=name not in _UNREAL)
        request = RunRequest(root=self._folder, spec=self._plan.spec, image_for=self._plan.image_for)
        executor = WorkflowExecutor(self._manager, [recorder])
        await executor.execute_workflow(parse_workflow(text, f"{workflow.name}.yml"), request)

    async def close(self) -> ScenarioSeen:
        """End everything, and return all that was seen."""
        setting = self._setting
        left = [f"{self._manager.stats().active} session"] if self._manager.stats().active else []
        waiting = set() if setting.recycling else set(self._watched.alive)
        await self._manager.close()
        left += [f"VM {vm_id}" for vm_id in sorted(waiting | self._watched.alive)]
        left += [path.stem for path in sorted((self._folder / "sessions").glob("sess-*"))]
        return ScenarioSeen(
            setting.id,
            setting.title,
            setting.limit,
            setting.recycling,
            runs=tuple(recorder.seen() for recorder in self._recorders),
            calls=tuple(self._watched.calls),
            ended=tuple(self._ended),
            left=tuple(left),
            log=tuple(self._log),
            seconds=time.monotonic() - self._started,
        )

    def tell(self, state: State) -> None:
        """Tell how far it is."""
        planned = sum(len(workflow.steps) for workflow in self._setting.workflows)
        vms = len(self._watched.alive)
        self._tell(Progress(self._setting.id, self._setting.title, state, self._steps, planned, vms))
