"""What a run tells those who let people in, and what it leaves to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.errors import GuestLost
from cloche.execution.executor import WorkflowExecutor
from cloche.execution.visits import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.execution.step_scope import StepScope
    from cloche.session import Session
    from cloche.vm.guest import JobRoot

    from .conftest import Lab

WORKFLOW = """
on: push
env: {GREETING: hello}
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: mkdir sub; echo "MORE=yes" >> $GITHUB_ENV
      - run: exit 3
        working-directory: sub
        env: {OWN: mine}
      - run: echo never
      - if: always()
        run: exit 4
"""


class Porter:
    """Writes down what it hears; ``asked`` is what happens at a failed step."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.heard: list[str] = []
        self.scopes: list[StepScope] = []
        self.kept: list[Session] = []
        self.keeps = keeps
        self.error: Exception | None = None

    def root(self, root: JobRoot) -> JobRoot:
        self.heard.append("root")
        return root

    async def at(self, scope: StepScope) -> None:
        self.heard.append(f"at {scope.step.index}")

    def left(self, root: JobRoot) -> None:  # noqa: ARG002 - there is only one
        self.heard.append("left")

    async def failed(self, scope: StepScope) -> None:
        self.heard.append(f"failed {scope.step.index}")
        self.scopes.append(scope)
        process = await scope.root.exec(program(scope))
        assert (await process.wait()).code == 3
        if self.error:
            raise self.error

    async def keep(self, session: Session, tell: Callable[[str], None]) -> bool:
        tell("kept")
        self.kept.append(session)
        return self.keeps


async def run(lab: Lab, porter: Porter) -> str:
    lab.executor = WorkflowExecutor(lab.manager, [lab._take], visits=porter)
    return (await lab.run(WORKFLOW)).conclusion


async def test_the_first_failed_step_of_a_job_asks_somebody_in(lab: Lab) -> None:
    porter = Porter()
    assert await run(lab, porter) == "failure"
    assert porter.heard == ["root", "at 1", "at 2", "failed 2", "at 4", "left"]
    (scope,) = porter.scopes
    step = program(scope)
    assert step.cwd.endswith("/sub")
    assert {step.env[name] for name in ("GREETING", "OWN", "MORE")} == {"hello", "mine", "yes"}


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_session_is_released_unless_it_is_taken_over(lab: Lab, *, keeps: bool) -> None:
    porter = Porter(keeps=keeps)
    await run(lab, porter)
    assert lab.manager.stats().active == (1 if keeps else 0)
    assert ("session.released" in [event.type for event in lab.events]) is not keeps
    for session in porter.kept if keeps else []:
        await lab.manager.release_session(session)


async def test_a_guest_that_is_lost_meanwhile_ends_the_job(lab: Lab) -> None:
    porter = Porter()
    porter.error = GuestLost("gone")
    assert await run(lab, porter) == "failure"
    assert "at 4" not in porter.heard
