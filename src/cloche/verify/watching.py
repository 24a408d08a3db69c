"""Eyes of our own: around the provider port, on the stream of events, on the log.

None of them is in anybody's way: the provider's own VMs go to the real pool, and from there to the real executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from typing import TYPE_CHECKING

from cloche.errors import ClocheError, GuestError, ProviderError
from cloche.events import (
    Annotation,
    Notice,
    RunFinished,
    SessionCreated,
    SessionReleased,
    StepFinished,
    StepOutput,
    StepStarted,
)
from cloche.session import SessionManager
from cloche.verify.observations import ProviderCall, ReleaseSeen, RunSeen, SessionSeen, StepSeen
from cloche.verify.probe import MAX_OUTPUT, nonces_in, read_output

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from cloche.events import Event
    from cloche.pool import VmPool
    from cloche.session import Session, SessionContext, SessionRegistry
    from cloche.verify.observations import CallKind
    from cloche.verify.probe import WorkflowPlan
    from cloche.vm.provider import Allocation, Vm, VmProvider, VmSpec

MEETING_DEADLINE = 300.0
"""Seconds that workflows wait for one another before their first steps."""
_ANSWER_DEADLINE = 2.0
_MAX_LOG = 2000
_MAX_ERROR = 500


class Ticks:
    """One counter for everything that is seen."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def __call__(self) -> int:
        """Return the next tick."""
        return next(self._next)


class WatchedProvider:
    """A provider, and a note of every call that anyone makes to it. See VmProvider."""

    def __init__(self, provider: VmProvider, ticks: Ticks) -> None:
        self._provider = provider
        self._ticks = ticks
        self.name = provider.name
        self.calls: list[ProviderCall] = []
        self.alive: set[str] = set()

    @property
    def notes(self) -> tuple[str, ...]:
        """The provider's own."""
        return self._provider.notes

    async def allocate(self, spec: VmSpec) -> Allocation:
        """Note what came of it."""
        began, started = self._ticks(), time.monotonic()
        try:
            allocation = await self._provider.allocate(spec)
        except BaseException as error:
            self._note("allocate", began, started, error=str(error) or type(error).__name__)
            raise
        self.alive.add(allocation.vm.id)
        self._note("allocate", began, started, allocation.vm, source=allocation.source)
        return allocation

    async def reset(self, vm: Vm) -> None:
        """Note what came of it; a VM that could not be reset has been ended."""
        began, started = self._ticks(), time.monotonic()
        try:
            await self._provider.reset(vm)
        except BaseException as error:
            self.alive.discard(vm.id)
            self._note("reset", began, started, vm, error=str(error) or type(error).__name__)
            raise
        self._note("reset", began, started, vm)

    async def release(self, vm: Vm) -> None:
        """Note whether the guest is gone afterwards."""
        began, started = self._ticks(), time.monotonic()
        await self._provider.release(vm)
        seconds = time.monotonic() - started
        self.alive.discard(vm.id)
        answers = await _answers(vm)
        self.calls.append(ProviderCall("release", began, self._ticks(), seconds, vm.id, answers=answers))

    async def close(self) -> None:
        """See VmProvider."""
        await self._provider.close()

    def _note(
        self,
        kind: CallKind,
        began: int,
        started: float,
        vm: Vm | None = None,
        *,
        source: str = "",
        error: str | None = None,
    ) -> None:
        info = vm.guest.info if vm and error is None else None
        call = ProviderCall(
            kind,
            began,
            self._ticks(),
            time.monotonic() - started,
            vm_id=vm.id if vm else "",
            boot_id=info.boot_id if info else "",
            kernel=info.kernel if info else "",
            source=source,
            error=error,
        )
        self.calls.append(call)


async def _answers(vm: Vm) -> bool:
    """Ask a guest that should be gone."""
    try:
        async with asyncio.timeout(_ANSWER_DEADLINE):
            await vm.guest.ping()
    except (GuestError, TimeoutError, OSError):
        return False
    return True


class Meeting:
    """A place where ``expected`` workflows wait for one another; who cannot come lets all go on."""

    def __init__(self, expected: int) -> None:
        self._missing = expected
        self._all_here = asyncio.Event()

    def arrive(self) -> None:
        """Be one more of those who are here."""
        self._missing -= 1
        if self._missing <= 0:
            self._all_here.set()

    def dissolve(self) -> None:
        """Let all go on: somebody will not come."""
        self._all_here.set()

    async def wait(self) -> None:
        """Return when all are here. ProviderError when that takes longer than five minutes."""
        try:
            async with asyncio.timeout(MEETING_DEADLINE):
                await self._all_here.wait()
        except TimeoutError:
            raise ProviderError(
                f"the other workflows of the scenario were not there within {MEETING_DEADLINE:g} s"
            ) from None


class MeetingManager(SessionManager):
    """The session manager itself; but whoever got a session meets the others before going on with it."""

    def __init__(self, pool: VmPool, registry: SessionRegistry, limit: int, meeting: Meeting) -> None:
        super().__init__(pool, registry, limit)
        self._meeting = meeting

    async def create_session(
        self, context: SessionContext, *, limit: int | None = None, wait: float | None = None
    ) -> Session:
        """See SessionManager."""
        try:
            session = await super().create_session(context, limit=limit, wait=wait)
        except ClocheError:
            self._meeting.dissolve()
            raise
        try:
            self._meeting.arrive()
            await self._meeting.wait()
        except BaseException:
            await self.release_session(session)
            raise
        return session


class RunRecorder:
    """Subscribes to one run and keeps what was seen of it. ``on_step`` hears of each step that starts."""

    def __init__(
        self,
        plan: WorkflowPlan,
        ticks: Ticks,
        known: Collection[str],
        on_step: Callable[[int], None] = lambda _number: None,
    ) -> None:
        """``known`` are all nonces of the verification so far; it may grow meanwhile."""
        self._plan = plan
        self._ticks = ticks
        self._known = known
        self._on_step = on_step
        self._sessions: list[SessionSeen] = []
        self._releases: list[ReleaseSeen] = []
        self._outputs: dict[int, str] = {}
        self._began: dict[int, tuple[int, float]] = {}
        self._ended: list[tuple[int, float, StepFinished]] = []
        self._finished: tuple[int, RunFinished] | None = None
        self.refused: str | None = None
        self.refused_at = 0
        self.error: str | None = None

    def __call__(self, event: Event) -> None:
        """Take one event."""
        tick = self._ticks()
        match event:
            case SessionCreated():
                self._sessions.append(
                    SessionSeen(
                        event.session_id,
                        event.vm_id,
                        event.boot_id,
                        event.source,
                        event.duration_ms / 1000,
                        tick,
                    )
                )
            case SessionReleased():
                self._releases.append(ReleaseSeen(event.session_id, event.vm_id, tick))
            case StepStarted():
                self._began[event.step] = tick, event.at
                self._on_step(event.step)
            case StepOutput():
                so_far = self._outputs.get(event.step, "")
                self._outputs[event.step] = so_far + event.text[: MAX_OUTPUT - len(so_far)]
            case StepFinished():
                self._ended.append((tick, time.clock_gettime(time.CLOCK_BOOTTIME), event))
            case RunFinished():
                self._finished = tick, event
            case Annotation(level="error") | Notice(level="error"):
                self.error = self.error or event.message[:_MAX_ERROR]

    def refuse(self, message: str) -> None:
        """Note that the session limit refused it, now."""
        self.refused, self.refused_at = message, self._ticks()

    def seen(self) -> RunSeen:
        """Return all that was seen."""
        tick, finished = self._finished or (0, None)
        return RunSeen(
            self._plan.name,
            self._plan.nonce,
            len(self._plan.steps),
            sessions=tuple(self._sessions),
            steps=tuple(self._step(*ended) for ended in self._ended),
            releases=tuple(self._releases),
            conclusion=finished.conclusion if finished else "",
            ended=tick,
            seconds=finished.duration_ms / 1000 if finished else 0.0,
            refused=self.refused,
            refused_at=self.refused_at,
            error=self.error,
        )

    def _step(self, tick: int, host_uptime: float, event: StepFinished) -> StepSeen:
        began, started_at = self._began.get(event.step, (tick, event.at))
        output = self._outputs.get(event.step, "")
        planned = self._plan.steps
        return StepSeen(
            event.step,
            planned[event.step - 1].challenge if event.step <= len(planned) else "",
            began,
            tick,
            event.vm_id,
            event.boot_id,
            event.conclusion == "success",
            started_at,
            event.at,
            host_uptime,
            read_output(output),
            nonces_in(output, self._known),
        )


class _Tap(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) < _MAX_LOG:
            self._lines.append(record.getMessage())


@contextlib.contextmanager
def log_lines() -> Iterator[list[str]]:
    """Collect the lines of Cloche's log that operators see, for as long as the block lasts."""
    lines: list[str] = []
    logger, tap = logging.getLogger("cloche"), _Tap(lines)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(tap)
    try:
        yield lines
    finally:
        logger.removeHandler(tap)
        logger.propagate = propagate
        logger.setLevel(level)
