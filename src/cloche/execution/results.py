"""What a run and its jobs came to."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.events import Conclusion


@record
class JobResult:
    """How a job, or one leg of it, ended. ``conclusion`` is before the job's ``continue-on-error``."""

    job: str
    leg: str | None
    name: str
    conclusion: Conclusion
    outputs: Mapping[str, str] = field(default_factory=dict)
    continue_on_error: bool = False


@record
class RunResult:
    """How a run ended. ``session_id`` and ``vm_id`` are ``None`` if it needed no VM; ``duration`` is seconds."""

    run_id: str
    conclusion: Conclusion
    jobs: tuple[JobResult, ...]
    duration: float
    session_id: str | None = None
    vm_id: str | None = None
