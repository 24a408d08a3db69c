"""Carrying a workflow out: one session, in it all jobs, and at the end, whatever happened, its release."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cloche.errors import ClocheError, GuestError, GuestLost
from cloche.execution.masking import Masker
from cloche.execution.publisher import Publisher
from cloche.execution.run import Run, new_run_id
from cloche.execution.visits import Visits
from cloche.session import SessionContext, SessionState, SessionStateError
from cloche.session.model import NEXT_STATES
from cloche.tasks import finish
from cloche.workflow.runson import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from cloche.events import Conclusion, Subscriber
    from cloche.execution.cuts import Rewind
    from cloche.execution.jobs import JobGraph
    from cloche.execution.request import RunRequest
    from cloche.execution.results import RunResult
    from cloche.session import Session
    from cloche.store.runs import RunStore
    from cloche.vm.snapshot import VmSnapshot
    from cloche.workflow.model import Workflow


def check(workflow: Workflow, request: RunRequest) -> None:
    """Raise what would keep ``workflow`` from being carried out, before anything is allocated for it.

    WorkflowError and UsageError, as ``WorkflowExecutor.execute_workflow`` raises them.
    """
    Run.of(workflow, request, Publisher(new_run_id(), Masker(), ()))


class Sessions(Protocol):
    """What the executor needs of a SessionManager."""

    async def create_session(self, context: SessionContext) -> Session:
        """Bind the run to a VM."""

    async def release_session(self, session: Session) -> None:
        """End the session and its VM."""

    def update_state(self, session: Session, state: SessionState) -> None:
        """Move the session to another state."""

    def touch(self, session: Session) -> None:
        """Note that the session is being used. SessionStateError when it has been released."""

    async def snapshot(self, session: Session, folder: Path) -> VmSnapshot:
        """Keep what the session's VM is now in ``folder``."""


class Porter(Visits, Protocol):
    """Lets people into a run, and into what is left of it."""

    async def keep(self, session: Session, tell: Callable[[str], None]) -> bool:
        """Take the run's session over at its end, to release it later; false when it is to be released now."""


class WorkflowExecutor:
    """Carries out workflows, one at a time; runs that go on side by side have an executor each.

    ``subscribers`` get every event. ``notes`` gives lines that the user should see at the start of a run, such as
    what the provider has to say. ``clock`` gives seconds since the epoch. ``store`` is where runs are kept that ask for
    snapshots; without one there are none. ``visits`` lets people into the run.
    """

    def __init__(
        self,
        sessions: Sessions,
        subscribers: Sequence[Subscriber] = (),
        *,
        notes: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.time,
        store: RunStore | None = None,
        visits: Porter | None = None,
    ) -> None:
        self._store = store
        self._visits = visits
        self._sessions = sessions
        self._subscribers = tuple(subscribers)
        self._notes = notes
        self._clock = clock
        self._graph: JobGraph | None = None
        self._running: asyncio.Task[Conclusion] | None = None
        self._aborted = False

    async def execute_workflow(
        self, workflow: Workflow, request: RunRequest, rewind: Rewind | None = None
    ) -> RunResult:
        """Carry ``workflow`` out in a session of its own, which is released on every path.

        With ``rewind`` it goes on from there: what that says has been carried out must be what ``workflow`` says.

        Raises WorkflowError and UsageError for what cannot be carried out, before anything is allocated;
        SessionLimitReached, ProviderError and ImageError when there is no VM to be had.
        """
        run = self._prepare(workflow, request, rewind)
        image = rewind.snapshot.spec.image if rewind else run.plan.image
        work = self._without_vm(run) if image is None else self._in_own_session(run, image)
        return await self._to_its_end(run, work)

    async def execute_workflow_in_session(
        self, session: Session, workflow: Workflow, request: RunRequest
    ) -> RunResult:
        """Carry ``workflow`` out in a session that the caller owns and releases; it is active afterwards.

        The session's VM is what there is: it counts in place of the request's ``spec``, and for what labels may ask.

        Raises WorkflowError and UsageError for what cannot be carried out, and SessionStateError for a session that
        has ended or is busy, before anything is run.
        """
        spec = session.context.spec
        request = replace(request, spec=spec, most=Size(spec.cpus, spec.memory))
        run = self._prepare(workflow, request)
        fresh = session.state is SessionState.INITIALIZING
        if not fresh and SessionState.EXECUTING not in NEXT_STATES[session.state]:
            raise SessionStateError(
                f"session {session.id} is {session.state}: it carries out no workflow now"
            )
        return await self._to_its_end(run, self._in_session(run, session, owned=False))

    def cancel(self) -> None:
        """Cancel the run as GitHub does: steps are stopped gently, and what asks for it still runs."""
        if self._graph is None:
            self.abort()  # no job has begun: there is nothing to be gentle with
        else:
            self._graph.cancel()

    def abort(self) -> None:
        """Stop the run at once; its session is released all the same. Without a run, nothing happens."""
        if self._running is not None:
            self._aborted = True
            self._running.cancel()

    def _prepare(self, workflow: Workflow, request: RunRequest, rewind: Rewind | None = None) -> Run:
        publisher = Publisher(new_run_id(), Masker(), self._subscribers, self._clock)
        return Run.of(workflow, request, publisher, rewind)

    async def _to_its_end(self, run: Run, work: Coroutine[None, None, Conclusion]) -> RunResult:
        started = time.monotonic()
        conclusion: Conclusion = "failure"
        self._aborted = False
        self._running = asyncio.create_task(self._from_its_start(run, work))
        try:
            conclusion = await self._running
        except asyncio.CancelledError:
            conclusion = "cancelled"
            if not self._aborted:
                raise
        finally:
            self._running = self._graph = None
            run.tell_end(conclusion, time.monotonic() - started)
        return run.result(conclusion, time.monotonic() - started)

    async def _from_its_start(self, run: Run, work: Coroutine[None, None, Conclusion]) -> Conclusion:
        with contextlib.closing(work):  # where a subscriber's exception keeps it from being awaited
            run.tell_start(self._notes())
            return await work

    async def _without_vm(self, run: Run) -> Conclusion:
        """Conclude a run that needs no VM, since none of its jobs can run."""
        return await run.graph(None).run()

    async def _in_own_session(self, run: Run, image: str) -> Conclusion:
        spec = replace(run.request.spec, image=image, cpus=run.plan.cpus, memory=run.plan.memory)
        kept = run.rewind.snapshot if run.rewind else None
        name = run.publisher.masker.mask(run.workflow.display_name)  # other processes are told of it
        session = await self._sessions.create_session(
            SessionContext(name, kept.spec if kept else spec, run.tell_waiting, kept)
        )
        try:
            return await self._in_session(run, session, owned=True)
        finally:
            await finish(self._release(run, session))

    async def _release(self, run: Run, session: Session) -> None:
        if self._visits and await self._visits.keep(
            session, lambda told: run.publisher.notice("notice", told)
        ):
            return
        try:
            await self._sessions.release_session(session)
        except ClocheError as wrong:
            run.publisher.notice("error", f"Session {session.id} could not be released: {wrong.message}")
            raise
        run.tell_release(session)

    async def _in_session(self, run: Run, session: Session, *, owned: bool) -> Conclusion:
        run.tell_session(session)
        if session.state is SessionState.INITIALIZING:
            self._sessions.update_state(session, SessionState.ACTIVE)
        self._sessions.update_state(session, SessionState.EXECUTING)
        state = SessionState.FAILED if owned else SessionState.ACTIVE
        started = time.monotonic()
        try:
            conclusion = await self._run_jobs(run, session)
            if owned and conclusion in {"success", "skipped"}:
                state = SessionState.COMPLETED
        finally:
            if session.state is not SessionState.TERMINATING:  # else it was taken away
                self._sessions.update_state(session, state)
        run.tell_jobs_ended(conclusion, time.monotonic() - started)
        return conclusion

    async def _run_jobs(self, run: Run, session: Session) -> Conclusion:
        quiet = asyncio.Lock()
        if self._store is None or run.request.snapshots == "never":
            return await self._run_graph(run, session, quiet)
        from cloche.execution.keeping import kept

        async with kept(
            self._store, run, lambda folder: self._sessions.snapshot(session, folder), quiet
        ) as end:
            conclusion = await self._run_graph(run, session, quiet)
            end(conclusion)
        return conclusion

    async def _run_graph(self, run: Run, session: Session, quiet: asyncio.Lock) -> Conclusion:
        run.visits = self._visits
        self._graph = graph = run.graph(session.vm.guest)

        def lose(why: str) -> None:
            lost = f"session {session.id} ended before the run did: {why}"
            graph.lose(GuestLost(lost))
            run.publisher.notice("error", lost)

        session.on_loss = lose
        health = asyncio.create_task(self._watch(session, graph, run.request.timing.health, quiet))
        try:
            return await graph.run()
        finally:
            session.on_loss = None
            health.cancel()
            await asyncio.wait({health})

    async def _watch(self, session: Session, graph: JobGraph, interval: float, quiet: asyncio.Lock) -> None:
        """Ask the guest for its health every ``interval`` seconds; tell the jobs when it has none.

        Who holds ``quiet`` is not disturbed.
        """
        while True:
            await asyncio.sleep(interval)
            try:
                async with quiet:
                    await session.vm.guest.ping()
                self._sessions.touch(session)
            except GuestError as error:
                graph.lose(error)
                return
            except SessionStateError:  # it was taken away, and the jobs know
                return
