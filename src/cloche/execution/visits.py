"""Letting people into a run: what the run tells of where its jobs are, and whom it asks when a step has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cloche.execution.step_scope import StepScope
    from cloche.vm.guest import ExecSpec, JobRoot


class Visits(Protocol):
    """Hears where the jobs of one run are."""

    def root(self, root: JobRoot) -> JobRoot:
        """Return a job's root, or one that stays open longer."""

    async def at(self, scope: StepScope) -> None:
        """Have a step wait that is about to run. GuestError when the guest is gone."""

    def left(self, root: JobRoot) -> None:
        """Hear that a job's last step has ended: its root is about to be closed."""

    async def failed(self, scope: StepScope) -> None:
        """Have the job wait after the first step that failed in it. GuestError when the guest is gone."""


def program(scope: StepScope) -> ExecSpec:
    """Return what the step's program was, or would be, started as: its environment, folder and user."""
    from cloche.execution.run_step import environment
    from cloche.execution.step_scope import StepError
    from cloche.vm.guest import ExecSpec

    if scope.program is not None:
        return scope.program
    try:
        env = environment(scope)
    except StepError:  # that is why it failed, perhaps
        env = dict(scope.setup.environment)
    return ExecSpec(argv=(), env=env, cwd=scope.setup.workspace)
