"""What a session is, and which states may follow which."""

from __future__ import annotations

import enum
import os
from dataclasses import field
from typing import TYPE_CHECKING

from cloche.errors import ClocheError
from cloche.records import record
from cloche.vm.provider import VmSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.session.registry import Waiting
    from cloche.vm.provider import Allocation, Vm
    from cloche.vm.snapshot import VmSnapshot


class SessionState(enum.Enum):
    """Where a session is in its life."""

    INITIALIZING = "Initializing"
    ACTIVE = "Active"
    EXECUTING = "Executing"
    PAUSED = "Paused"
    COMPLETED = "Completed"
    FAILED = "Failed"
    ROLLED_BACK = "RolledBack"
    TERMINATING = "Terminating"

    def __str__(self) -> str:
        return self.value


_S = SessionState

NEXT_STATES: dict[SessionState, frozenset[SessionState]] = {
    _S.INITIALIZING: frozenset({_S.ACTIVE, _S.FAILED, _S.TERMINATING}),
    _S.ACTIVE: frozenset({_S.EXECUTING, _S.PAUSED, _S.COMPLETED, _S.FAILED, _S.ROLLED_BACK, _S.TERMINATING}),
    _S.EXECUTING: frozenset({_S.ACTIVE, _S.PAUSED, _S.COMPLETED, _S.FAILED, _S.ROLLED_BACK, _S.TERMINATING}),
    _S.PAUSED: frozenset({_S.ACTIVE, _S.EXECUTING, _S.FAILED, _S.ROLLED_BACK, _S.TERMINATING}),
    _S.COMPLETED: frozenset({_S.TERMINATING}),
    _S.FAILED: frozenset({_S.ROLLED_BACK, _S.TERMINATING}),
    _S.ROLLED_BACK: frozenset({_S.ACTIVE, _S.EXECUTING, _S.FAILED, _S.TERMINATING}),
    _S.TERMINATING: frozenset(),
}
"""The states that may follow each state. Nothing follows Terminating."""


class SessionStateError(ClocheError):
    """A session was asked to go where its state does not lead, or is not one of this manager's."""


@record
class SessionContext:
    """What a session is wanted for: the workflow's name, for people, and the VM it needs.

    ``on_wait`` is told of its place in the line, where it has to wait for one. With a ``snapshot`` the VM is made
    of that.
    """

    workflow: str
    spec: VmSpec = field(default_factory=VmSpec)
    on_wait: Callable[[Waiting], None] | None = None
    snapshot: VmSnapshot | None = None


@record(frozen=False, eq=False)
class Session:
    """The bond of a run and its VM. Its manager alone changes it.

    Times are seconds since the epoch. ``snapshots`` are the ids of the snapshots taken of its VM, the latest
    last. ``on_loss`` is called, with the reason, when the session is taken away from whoever works in it.
    """

    id: str
    context: SessionContext
    allocation: Allocation
    started_at: float
    last_activity: float
    state: SessionState = SessionState.INITIALIZING
    snapshots: tuple[str, ...] = ()
    on_loss: Callable[[str], None] | None = None

    @property
    def vm(self) -> Vm:
        """The one VM of this session."""
        return self.allocation.vm

    @property
    def vm_id(self) -> str:
        """The id of its VM."""
        return self.allocation.vm.id

    @property
    def vm_type(self) -> str:
        """The name of the provider that made its VM."""
        return self.allocation.vm.provider


def new_session_id() -> str:
    """Return an id no other session of this machine has: ``sess-`` and 12 hexadecimal digits."""
    return f"sess-{os.urandom(6).hex()}"
