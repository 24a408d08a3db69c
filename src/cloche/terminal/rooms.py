"""The places in a guest that a person can be let into: a job's root, as the step sees it that runs there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record
from cloche.vm.guest import ExecSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloche.vm.guest import JobRoot, TtySize

_SHELL = 'cd "$0"; if command -v bash >/dev/null 2>&1; then exec bash --noprofile --norc; fi; exec sh'
_PROMPT = "cloche:\\w\\$ "


@record
class Room:
    """A job's root that is open. ``job`` is the job's name, with its leg's values; ``step`` that of its step now.

    ``id`` is the job's in its workflow, which legs share. ``program`` makes what its step's program is started as: its
    environment, folder and user.
    """

    job: str
    step: str
    root: JobRoot
    program: Callable[[], ExecSpec]
    id: str = ""

    def told(self) -> Mapping[str, str]:
        """What people are told of it."""
        return {"job": self.job, "id": self.id, "step": self.step}


def shell(room: Room, size: TtySize | None, terminal: str) -> ExecSpec:
    """Return what to start in a room for somebody to type at: bash where there is one.

    ``size`` and ``terminal`` are their terminal's; without a size it reads commands as from a pipe. It reads no
    start-up files: what it finds is what the step found. Where the step's folder is missing, it begins in ``/``.
    """
    step = room.program()
    own = {"TERM": terminal, "PS1": _PROMPT} if size else {}
    return ExecSpec(
        argv=("/bin/sh", "-c", _SHELL, step.cwd),
        env={**step.env, **own},
        user=step.user,
        stdin=size is None,
        tty=size,
    )
