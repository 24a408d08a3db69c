"""Cuts of a run while it goes on: before which steps they are made, which of them stay, and going on from one.

A cut is the VM's snapshot and the executor's checkpoint, made together while no step is under way: it can only be
whole.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

from cloche.errors import ClocheError, GuestError, GuestLost, GuestTimeout
from cloche.events import SnapshotTaken
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from typing import Any

    from cloche.execution.checkpoint import Checkpoint
    from cloche.execution.publisher import Publisher
    from cloche.execution.resume import Place, Side
    from cloche.store.runs import Cut, CutFacts
    from cloche.vm.snapshot import VmSnapshot

_PAUSES = (0.02, 0.1, 0.5)
"""Seconds between attempts."""

Mode = Literal["never", "on-failure", "each-step"]


class Kept(Protocol):
    """Where the cuts of one run are kept: a RunWriter."""

    async def cut(
        self, facts: CutFacts, checkpoint: Mapping[str, Any], take: Callable[[Path], Awaitable[CutFacts]], /
    ) -> Cut:
        """Make a cut, of which nothing is left when it fails."""

    def note_failure(self, cut: Cut, /) -> None:
        """Note that the step after ``cut`` failed."""

    def drop(self, cut: Cut, /) -> None:
        """Remove a cut."""


@record
class Rewind:
    """What a run goes on from. ``side`` settles whose file counts where both changed one."""

    checkpoint: Checkpoint
    snapshot: VmSnapshot
    side: Side | None = None


class Cuts:
    """Makes the cuts of one run, until one fails: then the run goes on without, and says so.

    ``take`` makes a snapshot of the run's VM in a folder; ``quiet`` is held by whoever asks something of its guest.
    """

    def __init__(
        self,
        kept: Kept,
        take: Callable[[Path], Awaitable[VmSnapshot]],
        publisher: Publisher,
        *,
        mode: Mode,
        quiet: asyncio.Lock,
    ) -> None:
        self._kept = kept
        self._take = take
        self._publisher = publisher
        self._mode = mode
        self._quiet = quiet
        self._last: Cut | None = None
        self._broken = False

    def wanted(self, status: str) -> bool:
        """Tell whether to make a cut before a step of a job that stands at ``status``."""
        return not self._broken and (self._mode == "each-step" or status == "success")

    async def before(self, checkpoint: Checkpoint) -> None:
        """Make a cut before the step at the checkpoint's place."""
        from cloche.store.runs import CutFacts

        place, started = checkpoint.place, time.monotonic()
        facts = CutFacts(
            number=0,
            at=checkpoint.at,
            job=place.job,
            leg=place.leg,
            job_name=self._publisher.masker.mask(place.job_name),
            step=place.step,
            step_id=place.step_id,
            step_name=place.step_name,
        )

        async def take(folder: Path) -> CutFacts:
            snapshot = await self._take_soon(folder)
            return replace(facts, size=snapshot.size, paused=snapshot.paused)

        try:
            async with self._quiet:
                self._last = await self._kept.cut(facts, checkpoint.to_json(), take)
        except (ClocheError, OSError) as wrong:
            self._give_up(wrong)
            return
        self._tell(place, self._last.facts, time.monotonic() - started)

    async def _take_soon(self, folder: Path) -> VmSnapshot:
        """Make a snapshot, a little later where something that was given up is still ending in the guest."""
        for pause in _PAUSES:
            try:
                return await self._take(folder)
            except (GuestLost, GuestTimeout):
                raise
            except GuestError:
                await asyncio.sleep(pause)
        return await self._take(folder)

    def after(self, *, failed: bool) -> None:
        """Take note of how the step after the last cut ended; that cut goes when nobody will want it."""
        cut, self._last = self._last, None
        if cut is None:
            return
        try:
            if failed:
                self._kept.note_failure(cut)
            elif self._mode == "on-failure":
                self._kept.drop(cut)
        except OSError as wrong:
            self._give_up(wrong)

    def _give_up(self, wrong: ClocheError | OSError) -> None:
        self._broken = True
        why = wrong.message if isinstance(wrong, ClocheError) else str(wrong)
        self._publisher.notice("warning", f"No more snapshots are made of this run: {why}")

    def _tell(self, place: Place, facts: CutFacts, seconds: float) -> None:
        self._publisher.publish(
            SnapshotTaken(
                run_id=self._publisher.run_id,
                at=self._publisher.clock(),
                job=place.job,
                leg=place.leg,
                step=place.step,
                size=facts.size,
                paused_ms=round(facts.paused * 1000, 3),
                duration_ms=round(seconds * 1000),
            )
        )
