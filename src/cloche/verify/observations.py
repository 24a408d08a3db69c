"""What a verification saw, as plain data: the judge is given this and nothing else.

Places in time are ticks: one counter for everything seen, so that "before" and "during" are no matter of clocks.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from cloche.records import record

CallKind = Literal["allocate", "reset", "release"]


@record
class ProviderCall:
    """A call that our wrapper around the provider port saw. ``seconds`` is how long it took.

    ``boot_id`` is what the guest's agent told when the VM was handed over. ``answers`` is whether the guest still
    answered after it was released; ``None`` where that was not asked. ``error`` is what the call raised.
    """

    kind: CallKind
    began: int
    ended: int
    seconds: float
    vm_id: str = ""
    boot_id: str = ""
    kernel: str = ""
    source: str = ""
    answers: bool | None = None
    error: str | None = None


@record
class Said:
    """What a step read inside the guest; ``None`` or empty where it said nothing.

    ``uptime`` and ``clock`` are seconds, since the guest's boot and since the epoch. ``chain`` are the words that
    this and the earlier steps of the workflow wrote to a file, in order. ``alive`` is whether the process that the
    first step left still runs. ``kernel_mark`` is the word in a place that a whole kernel has once.
    ``did`` are the traces it left, ``found`` those of a former workflow that it came upon by their place.
    """

    boot_id: str | None = None
    hostname: str | None = None
    uptime: float | None = None
    clock: float | None = None
    chain: tuple[str, ...] = ()
    alive: bool | None = None
    kernel_mark: str | None = None
    did: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


@record
class StepSeen:
    """A step: what the events say of it, and what it said itself.

    ``challenge`` is the word that only this step was given. ``nonces`` are all nonces of this verification that
    appear in its output. ``started_at`` and ``ended_at`` are seconds since the epoch on the host,
    ``host_uptime`` those since its boot, when the step ended.
    """

    number: int
    challenge: str
    began: int
    ended: int
    vm_id: str
    boot_id: str | None
    succeeded: bool
    started_at: float
    ended_at: float
    host_uptime: float = 0.0
    said: Said = field(default_factory=Said)
    nonces: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_at - self.started_at


@record
class SessionSeen:
    """A session as its event tells of it; ``allocation`` is seconds."""

    session_id: str
    vm_id: str
    boot_id: str
    source: str
    allocation: float
    tick: int


@record
class ReleaseSeen:
    """The event of a session's end."""

    session_id: str
    vm_id: str
    tick: int


@record
class RunSeen:
    """One workflow of a scenario. ``planned`` counts its steps, ``nonce`` is its own.

    ``refused`` is the message of a SessionLimitReached, at tick ``refused_at``; ``error`` that of another error, or
    of the run's first annotation of one.
    ``seconds`` is the whole run's.
    """

    name: str
    nonce: str
    planned: int
    sessions: tuple[SessionSeen, ...] = ()
    steps: tuple[StepSeen, ...] = ()
    releases: tuple[ReleaseSeen, ...] = ()
    conclusion: str = ""
    ended: int = 0
    seconds: float = 0.0
    refused: str | None = None
    refused_at: int = 0
    error: str | None = None

    @property
    def first_step(self) -> int:
        """The tick at which its first step started."""
        return min((step.began for step in self.steps), default=0)

    @property
    def last_step(self) -> int:
        """The tick at which its last step ended."""
        return max((step.ended for step in self.steps), default=0)

    @property
    def boot_ids(self) -> set[str]:
        """All boot ids that anyone told of it: the session's event, the steps' events, the steps themselves."""
        told = {session.boot_id for session in self.sessions}
        told |= {step.boot_id for step in self.steps if step.boot_id}
        return told | {step.said.boot_id for step in self.steps if step.said.boot_id}


@record
class EndedSeen:
    """A VM that a pool ended before it was closed; ``why`` and ``detail`` are the pool's words."""

    vm_id: str
    why: str
    detail: str


@record
class ScenarioSeen:
    """One scenario: what it was to show, what the provider was asked meanwhile, what became of its workflows.

    ``limit`` is the session limit. ``recycling`` is whether its pool resets VMs and offers them again. ``ended``
    are the VMs that such a pool had to end. ``left`` names what was still there at the end: VMs at the provider,
    sessions. ``log`` are the operators' lines.
    """

    id: str
    title: str
    limit: int
    recycling: bool
    runs: tuple[RunSeen, ...]
    calls: tuple[ProviderCall, ...]
    ended: tuple[EndedSeen, ...]
    left: tuple[str, ...]
    log: tuple[str, ...]
    seconds: float

    @property
    def carried(self) -> tuple[RunSeen, ...]:
        """The runs that were not refused."""
        return tuple(run for run in self.runs if run.refused is None)

    @property
    def allocations(self) -> tuple[ProviderCall, ...]:
        """The VMs that the provider made."""
        return tuple(call for call in self.calls if call.kind == "allocate" and call.error is None)


@record
class Seen:
    """Everything. ``own_kernel`` is whether the provider's guests are to have kernels of their own."""

    provider: str
    own_kernel: bool
    host_boot_id: str
    scenarios: tuple[ScenarioSeen, ...]

    @property
    def runs(self) -> tuple[RunSeen, ...]:
        """The runs of all scenarios."""
        return tuple(run for scenario in self.scenarios for run in scenario.runs)
