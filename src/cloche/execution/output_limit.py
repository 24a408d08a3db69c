"""How much all steps of a run may write together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.execution.publisher import StepPublisher


class OutputLimit:
    """Counts what steps write. Past ``limit`` (bytes, ``None`` for no limit) the run is stopped and nothing kept.

    ``stop`` is given the reason, once; who makes the run's jobs sets it.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._written = 0
        self.stop: Callable[[str], None] = lambda _reason: None

    def take(self, chunk: bytes, step: StepPublisher) -> bytes:
        """Return what of ``chunk`` is kept."""
        if self._limit is None:
            return chunk
        left = self._limit - self._written
        self._written += len(chunk)
        if len(chunk) <= left:
            return chunk
        if left >= 0:
            self._tell(step)
            self._written = self._limit + 1
        return chunk[: max(left, 0)]

    def _tell(self, step: StepPublisher) -> None:
        limit = self._limit or 0
        step.limit_reached("output", limit, self._written)
        self.stop(
            f"The run has written more than {format_size(limit)}, its limit. Nothing more of it is kept."
        )
