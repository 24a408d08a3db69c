"""Whether a VM is clean: as a fresh one of its template, with an identity that no VM had before.

What the guest answers is not trusted to be true; a reset ended whatever could lie before. It is bounded and
compared, so that a reset that did less than it should is found out.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestTimeout
from cloche.vm.guest import ExecSpec, JobRootSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloche.vm.guest import Guest, Inspection
    from cloche.vm.provider import Vm

CHECK_DEADLINE = 15.0
"""Seconds a guest has to answer what there is in it; 0.05 under emulation on an idle machine."""
WARM_UP_DEADLINE = 30.0
"""Seconds the throw-away process has; 0.2 under emulation on an idle machine."""
CLOCK_TOLERANCE = 2.0
"""Seconds that a guest's clock may be off the host's."""
_REMEMBERED = 100_000
_SHOWN = 5
_PAUSE = 0.02
_OF_JOBS = ("jobs", "processes", "files")
_SCRIPT = "/tmp/warm-up.sh"  # noqa: S108 - a path in a job root of its own
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class UncleanError(GuestError):
    """A VM is not as a fresh one would be."""


class _Memory:
    """What was seen before; what is oldest is forgotten beyond some number."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str | bytes, None] = OrderedDict()

    def is_new(self, what: str | bytes) -> bool:
        """Whether this was never seen before; now it is."""
        if what in self._seen:
            return False
        self._seen[what] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True


class Hygiene:
    """One pool's checks. ``clock`` is the host's, in seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._boot_ids = _Memory()
        self._entropy = _Memory()

    async def check(self, vm: Vm, fresh: Inspection | None) -> Inspection:
        """Compare a VM in which nothing should have run yet with ``fresh``, the inspection of one that was new.

        Returns its own inspection. UncleanError names what is wrong; GuestTimeout when the guest takes too long,
        GuestLost when it is gone.
        """
        asked = self._clock()
        try:
            async with asyncio.timeout(CHECK_DEADLINE):
                found = await vm.guest.inspect()
        except TimeoutError:
            raise GuestTimeout(f"VM {vm.id} did not say within {CHECK_DEADLINE:g} s what is in it") from None
        wrong = [*self._strange(vm, found, asked, self._clock()), *_differences(found, fresh)]
        if wrong:
            more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise UncleanError(f"VM {vm.id} is not clean: {'; '.join(wrong[:_SHOWN])}{more}")
        return found

    async def settle(self, vm: Vm, fresh: Inspection) -> None:
        """Wait until nothing is left of what ran to warm a VM up, compared with before: its root goes in a while.

        UncleanError when something stays; GuestLost when the guest is gone.
        """
        left: list[str] = []
        try:
            async with asyncio.timeout(CHECK_DEADLINE):
                while left := _more(await vm.guest.inspect(), fresh):  # noqa: ASYNC110 - the guest tells nobody
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise UncleanError(f"VM {vm.id} keeps what warmed it up: {'; '.join(left[:_SHOWN])}") from None

    def _strange(self, vm: Vm, found: Inspection, asked: float, answered: float) -> Iterator[str]:
        """What is wrong with its identity."""
        if found.hostname != vm.id:
            yield f"it calls itself {found.hostname[:64]!r}"
        if found.boot_id != vm.guest.info.boot_id:
            yield "its boot id is another than it had a moment ago"
        if not found.boot_id or not self._boot_ids.is_new(found.boot_id):
            yield "its boot id is that of another VM, or of its own past"
        if not found.entropy or not self._entropy.is_new(found.entropy):
            yield "its random numbers have been seen before"
        if not asked - CLOCK_TOLERANCE <= found.clock <= answered + CLOCK_TOLERANCE:
            yield f"its clock is {found.clock - answered:+.1f} s off"


def _differences(found: Inspection, fresh: Inspection | None) -> Iterator[str]:
    if fresh is None:
        return
    for kind in sorted({*found.state, *fresh.state}):
        have, should = Counter(found.state.get(kind, ())), Counter(fresh.state.get(kind, ()))
        yield from (f"{kind}: {what!r} should not be there" for what in have - should)
        yield from (f"{kind}: {what!r} is missing" for what in should - have)


def _more(found: Inspection, fresh: Inspection) -> list[str]:
    """What a job leaves, where it leaves something."""
    return [
        f"{kind}: {what!r}"
        for kind in _OF_JOBS
        for what in Counter(found.state.get(kind, ())) - Counter(fresh.state.get(kind, ()))
    ]


async def warm_up(guest: Guest) -> float:
    """Run a throw-away program in a job root of its own, so that the first step finds all of it in memory.

    Returns the seconds it took to start and end. GuestTimeout when that is too long, GuestLost when the guest is
    gone. An image without bash is as well off: what starts a program is warm all the same.
    """
    spec = ExecSpec(
        argv=("bash", "--noprofile", "--norc", "-e", _SCRIPT),
        env={"PATH": _PATH},
        files={_SCRIPT: b"true\n"},
        collect=(_SCRIPT,),
    )
    try:
        async with asyncio.timeout(WARM_UP_DEADLINE), await guest.open_job(JobRootSpec("warm-up")) as root:
            started = time.perf_counter()
            process = await root.exec(spec)
            async for _ in process.output():
                pass
            await process.wait()
            return time.perf_counter() - started
    except TimeoutError:
        raise GuestTimeout(f"a program did not run within {WARM_UP_DEADLINE:g} s") from None
