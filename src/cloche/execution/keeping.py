"""Keeping a run as it goes on, so that it can be taken up again: from its first job to its last."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cloche.events import RunKept
from cloche.execution.cuts import Cuts
from cloche.execution.leg_cuts import RunCuts
from cloche.store.runs import RunFacts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from cloche.events import Conclusion
    from cloche.execution.run import Run
    from cloche.store.runs import RunStore, RunWriter
    from cloche.vm.snapshot import VmSnapshot


@contextlib.asynccontextmanager
async def kept(
    store: RunStore, run: Run, take: Callable[[Path], Awaitable[VmSnapshot]], quiet: asyncio.Lock
) -> AsyncIterator[Callable[[Conclusion], None]]:
    """Have ``run`` make its cuts within the block, which tells how it ended; its cuts go if that was well.

    ``take`` and ``quiet`` are those of Cuts. A block that is left without a word was stopped: its cuts stay.
    """
    conclusion: Conclusion = "cancelled"

    def end(how: Conclusion) -> None:
        nonlocal conclusion
        conclusion = how

    try:
        writer = store.begin(_facts(run))
    except OSError as wrong:
        run.publisher.notice("warning", f"No snapshots are made of this run: {wrong}")
        yield end
        return
    mode = run.request.snapshots
    run.checkpoints = RunCuts(run, Cuts(writer, take, run.publisher, mode=mode, quiet=quiet))
    try:
        yield end
    finally:
        _close(store, run, writer, conclusion)


def _facts(run: Run) -> RunFacts:
    return RunFacts(
        run_id=run.publisher.run_id,
        workflow=run.publisher.masker.mask(run.workflow.display_name),
        path=run.workflow.path,
        root=str(run.request.root),
        began=run.publisher.clock(),
        of=run.rewind.checkpoint.run_id if run.rewind else None,
    )


def _close(store: RunStore, run: Run, writer: RunWriter, conclusion: Conclusion) -> None:
    try:
        stays = writer.close(conclusion, keep=conclusion not in ("success", "skipped"))
    except OSError as wrong:
        run.publisher.notice("warning", f"What was kept of this run may be lost: {wrong}")
        return
    if stays is not None:
        facts = stays.failed_cut.facts
        run.publisher.publish(
            RunKept(
                run_id=run.publisher.run_id,
                at=run.publisher.clock(),
                job=facts.job,
                leg=facts.leg,
                step=facts.step,
                size=stays.size,
                until=store.until(stays),
            )
        )
