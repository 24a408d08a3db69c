"""Finishing what must be finished, whoever stops waiting for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


async def finish(work: Awaitable[T]) -> T:
    """Run ``work`` to its end even when the caller is cancelled meanwhile; then the cancellation goes on.

    For what gives resources back. The work brings its own deadline.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as cancellation:
            if task.cancelled():
                break
            cancelled = cancellation
        except BaseException:  # noqa: BLE001 - the result below raises it
            break
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen: the cancellation outweighs it
        raise cancelled
    return task.result()
