"""Where a run goes on that goes on from another one: what its jobs have to know of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from cloche.execution.job_state import JobState
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.execution.results import JobResult

Side = Literal["ours", "theirs"]
"""Whose file counts where the host and an earlier step changed the same one: the host's, or the step's."""


@record
class Place:
    """Before which step of which leg. ``root`` is what the guest calls the leg's root."""

    job: str
    leg: str | None
    job_name: str
    step: int
    step_id: str
    step_name: str
    root: str

    def is_of(self, job: str, leg: str | None) -> bool:
        """Tell whether it is in this leg."""
        return (self.job, self.leg) == (job, leg)


@record
class Resume:
    """What had become of the run ``of`` when the step at ``place`` was next.

    ``elapsed`` is the seconds for which the leg at ``place`` had been running, ``state`` its state as it was written.
    ``results`` are of the legs and jobs that had ended, ``finished`` names the jobs of which nothing is left to run.
    """

    of: str
    place: Place
    elapsed: float
    state: Mapping[str, Any]
    results: tuple[JobResult, ...]
    finished: tuple[str, ...]
    side: Side | None = None

    def make_state(self) -> JobState:
        """Return the state of the leg at ``place``, as it was."""
        return JobState(**{**self.state, "checkouts": set(self.state["checkouts"])})

    def result(self, job: str, leg: str | None) -> JobResult | None:
        """Return how a leg had ended, ``None`` if it had not."""
        return next((result for result in self.results if (result.job, result.leg) == (job, leg)), None)
