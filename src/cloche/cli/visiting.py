"""Letting people into the runs of this process: at a failed step, by a door for `cloche shell`, and afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cloche.config import doors_dir
from cloche.daemon.wire import LONGEST_KEPT
from cloche.errors import ClocheError, UsageError
from cloche.events import RunStarted
from cloche.execution.visits import program
from cloche.records import record
from cloche.session import SessionState
from cloche.terminal.rooms import Room, shell
from cloche.units import format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from cloche.cli.curtain import Curtain
    from cloche.daemon.sessions import LentSessions
    from cloche.events import Event
    from cloche.execution.resume import Place
    from cloche.execution.step_scope import StepScope
    from cloche.session import Session
    from cloche.terminal.console import Console
    from cloche.terminal.door import Door
    from cloche.vm.guest import ExecSpec, JobRoot, Process

_log = logging.getLogger("cloche.visits")
DEFAULT_KEEP = 30 * 60.0
_DOOR_AFTER = 0.1  # seconds from the first step's start: whoever comes sooner than a person could, waits
_KEEP = re.compile(r"keep(?:=(.+))?")


@record
class OnFailure:
    """What is asked for: to be ``let_in`` where a step failed, or at the place ``before`` a step; to ``keep`` the VM.

    ``keep`` is for how many seconds, after a run that failed.
    """

    let_in: bool = False
    keep: float | None = None
    before: Place | None = None


NOTHING = OnFailure()


def read_on_failure(text: str | None) -> OnFailure:
    """Read ``shell`` or ``keep[=DURATION]``. UsageError for anything else."""
    if text is None:
        return NOTHING
    if text == "shell":
        return OnFailure(let_in=True)
    if found := _KEEP.fullmatch(text):
        try:
            seconds = parse_duration(found[1]) if found[1] else DEFAULT_KEEP
        except ValueError as wrong:
            raise UsageError(f"--on-failure {text}: {wrong}", hint="--on-failure keep=30m") from None
        if 0 < seconds <= LONGEST_KEPT:
            return OnFailure(keep=seconds)
        raise UsageError(
            f"--on-failure {text}: a VM is kept for up to 24 hours", hint="--on-failure keep=30m"
        )
    raise UsageError(f"--on-failure cannot be {text!r}", hint="--on-failure shell, keep or keep=30m")


def check_terminal(wanted: OnFailure, provider: str) -> None:
    """UsageError where a shell is wanted and there is nobody to have one, or nothing to have one of."""
    if not wanted.let_in and wanted.before is None:
        return
    option, hint = "--shell", None
    if wanted.let_in:
        option = "--on-failure shell"
        hint = "--on-failure keep keeps the VM for `cloche shell`; --snapshot on-failure, for `cloche rewind`"
    if provider == "fake":
        raise UsageError(f"{option}: the fake provider has no shells to type at", hint="--vm sandbox")
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError(f"{option} needs a terminal as its standard input and output", hint=hint)


def no_keeper() -> UsageError:
    """Return what to say where no daemon could own a VM that is kept."""
    return UsageError(
        "--on-failure keep needs the daemon, which then owns the VM; without one only cuts can be kept",
        hint="cloche up; or --snapshot on-failure, and `cloche rewind` later",
    )


@record
class Terms:
    """What all runs of a command share: what is wanted, one terminal, who may be asked to keep a VM.

    ``snapshots``: runs are kept as they are between steps, so nobody may be inside then. ``unwanted`` tells whether the
    user has interrupted.
    """

    wanted: OnFailure
    curtain: Curtain | None
    turn: asyncio.Lock
    keeper: LentSessions | None
    snapshots: bool
    unwanted: Callable[[], bool]


class RunPorter:
    """Lets people into one run; see execution.executor.Porter. A subscriber of its events, too."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._rooms: dict[str, Room] = {}
        self._failed: dict[str, StepScope] = {}
        self._about: dict[str, Any] = {}
        self._opening: asyncio.TimerHandle | None = None
        self._door: Door | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close("the run has ended")

    async def _close(self, why: str) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._door is not None:
            door, self._door = self._door, None
            await door.close(why)

    def __call__(self, event: Event, /) -> None:
        """Learn what the run is called."""
        if isinstance(event, RunStarted):
            self._about = {"run": event.run_id, "workflow": event.workflow, "pid": os.getpid()}

    # --- what the run tells

    def root(self, root: JobRoot) -> JobRoot:
        """See Visits: roots of jobs that failed stay open where the VM is to be kept."""
        if self._terms.wanted.keep is None:
            return root
        from cloche.terminal.roots import HeldRoot

        return HeldRoot(root, lambda: root.name in self._failed)

    async def at(self, scope: StepScope) -> None:
        """See Visits."""
        self._rooms[scope.root.name] = room_of(scope)
        if self._opening is None:
            self._opening = asyncio.get_running_loop().call_later(_DOOR_AFTER, self._open)
        if self._is_before(scope):
            room = await _room_before(scope)
            await self._let_in(
                scope, room, f"'{room.step}' of '{room.job}' comes next; this is a shell where it runs"
            )

    def left(self, root: JobRoot) -> None:
        """See Visits."""
        self._rooms.pop(root.name, None)

    async def failed(self, scope: StepScope) -> None:
        """See Visits."""
        self._failed[scope.root.name] = scope
        if self._terms.wanted.let_in:
            room = room_of(scope)
            await self._let_in(
                scope, room, f"'{room.step}' failed in '{room.job}'; this is a shell where it ran"
            )

    def _is_before(self, scope: StepScope) -> bool:
        place, job = self._terms.wanted.before, scope.publisher.job
        return place is not None and place.is_of(job.job, job.leg) and place.step == scope.step.index

    # --- a shell here

    async def _let_in(self, scope: StepScope, room: Room, why: str) -> None:
        """Have somebody in when it is their turn, unless there is nothing to wait for any more."""
        async with self._terms.turn:
            if not scope.control.cancelled:
                await self._on_the_terminal(scope, room, why)

    async def _on_the_terminal(self, scope: StepScope, room: Room, why: str) -> None:
        from cloche.terminal.console import Console, terminal_name

        assert self._terms.curtain is not None, "where a shell is wanted there is one"  # noqa: S101 - ours to keep
        console = Console()
        with self._terms.curtain.down():
            _say(f"{why}. When it ends, the run goes on.")
            process = await scope.root.exec(shell(room, console.size, terminal_name()))
            _say(await _join(scope, process, console))

    # --- a door

    def _open(self) -> None:
        from cloche.daemon.packets import Packets
        from cloche.terminal.door import Door, House

        path = doors_dir() / str(self._about["run"])
        house = House(lambda: self._about, self._open_rooms)
        try:
            self._door = Door(path, house, Packets)
        except OSError as wrong:
            _log.warning("cloche shell cannot reach this run: %s: %s", path, wrong.strerror or wrong)

    def _open_rooms(self) -> list[Room]:
        if self._terms.snapshots:
            raise UsageError(
                "nobody can be let into a run that keeps snapshots: they are of a VM at rest",
                hint="run it without --snapshot; or, once it has failed, cloche rewind",
            )
        return list(self._rooms.values())

    # --- afterwards

    async def keep(self, session: Session, tell: Callable[[str], None]) -> bool:
        """See Porter: where that is wanted, the daemon has the VM of a run that failed, and the roots that failed."""
        keeper, seconds = self._terms.keeper, self._terms.wanted.keep
        failed = self._failed and session.state is SessionState.FAILED
        if not failed or keeper is None or seconds is None or self._terms.unwanted():
            return False
        await self._close("the run has ended")
        rooms = [_told(scope) for scope in self._failed.values()]
        request = {**self._about, "seconds": seconds, "rooms": rooms}
        try:
            await keeper.keep(session, request)
        except ClocheError as wrong:
            tell(f"The VM could not be kept: {wrong.message}")
            return False
        run = self._about["run"]
        tell(f"VM {session.vm_id} is kept for {format_duration(seconds)}: cloche shell {run}")
        return True


def clear_doors() -> None:
    """Remove the doors of processes that were killed."""
    if doors_dir().exists():
        from cloche.terminal.visit import clear

        clear(doors_dir())


def room_of(scope: StepScope) -> Room:
    """Return where a step runs, or ran last."""
    masker = scope.setup.masker
    job = scope.publisher.job
    return Room(masker.mask(job.name), scope.name, scope.root, lambda: program(scope), id=job.job)


async def _room_before(scope: StepScope) -> Room:
    """Return where a step is about to run."""
    from cloche.execution.run_step import working_directory

    step = replace(program(scope), cwd=await working_directory(scope))
    return replace(room_of(scope), program=lambda: step)


def _told(scope: StepScope) -> Mapping[str, Any]:
    room, step = room_of(scope), program(scope)
    return {**room.told(), "root": scope.root.name, **_fields(step)}


def _fields(step: ExecSpec) -> Mapping[str, Any]:
    return {"env": dict(step.env), "cwd": step.cwd, "user": step.user}


def _say(text: str) -> None:
    from cloche.report.text import visible

    sys.stdout.write(f"cloche: {visible(text)}\n")
    sys.stdout.flush()


async def _join(scope: StepScope, process: Process, console: Console) -> str:
    """Have a shell on the terminal until it ends, or the job has to; which of these, in words."""
    from cloche.terminal.joining import join_console

    joined = asyncio.create_task(join_console(process, console))
    try:
        if await scope.control.watch(joined, None, _never) != "ended":
            return "the shell was ended: the job has been cancelled"
        if error := (await joined).error:
            return f"there is no shell to be had: {error}; the run goes on"
        return "the run goes on"
    finally:
        joined.cancel()
        with contextlib.suppress(ClocheError, asyncio.CancelledError):
            await joined


async def _never() -> bool:
    return False
