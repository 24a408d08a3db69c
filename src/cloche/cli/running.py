"""Carrying out what ``cloche run`` was asked: one executor a workflow, one reporter for all, Ctrl-C for everyone."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cloche.cli.compose import borrows, open_sessions
from cloche.cli.console import tell_error
from cloche.cli.curtain import Curtain
from cloche.cli.finding import Found, find_workflows, repository_root
from cloche.cli.masked import mask_error
from cloche.cli.measuring import measured
from cloche.cli.visiting import (
    NOTHING,
    OnFailure,
    RunPorter,
    Terms,
    check_terminal,
    clear_doors,
    no_keeper,
    read_on_failure,
)
from cloche.config import DEFAULT_IMAGE, load_settings, runs_dir, sessions_dir, vms_dir
from cloche.errors import (
    EXIT_INTERRUPTED,
    EXIT_SUCCESS,
    EXIT_WORKFLOW_FAILED,
    ClocheError,
    UsageError,
    WorkflowError,
)
from cloche.execution.checkout import remove_stale
from cloche.execution.executor import WorkflowExecutor, check
from cloche.execution.gitstate import Asked, event_from_repository
from cloche.execution.masking import Masker
from cloche.execution.request import RunRequest
from cloche.report import make_reporter
from cloche.session import SessionManager, SessionRegistry
from cloche.session.collect import collect_leftovers
from cloche.vm.provider import VmSpec
from cloche.workflow.runson import Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.cli.run import RunOptions
    from cloche.config import Settings
    from cloche.daemon.sessions import LentSessions
    from cloche.errors import Diagnostic
    from cloche.events import Subscriber
    from cloche.execution.cuts import Mode, Rewind
    from cloche.metrics import Metrics
    from cloche.report import Reporter
    from cloche.report.factory import Output
    from cloche.store.runs import RunStore
    from cloche.vm.provider import Network
    from cloche.workflow.model import Workflow

_log = logging.getLogger("cloche")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_workflows(options: RunOptions, secrets: Mapping[str, str]) -> int:
    """Run what the options name and return the exit code. ClocheError for what keeps it from starting."""
    masker = Masker(secrets.values())
    try:
        return _run_workflows(options, secrets, masker)
    except ClocheError as error:
        mask_error(error, masker)
        raise


def _run_workflows(options: RunOptions, secrets: Mapping[str, str], masker: Masker) -> int:
    root = repository_root(options.directory, Path.cwd())
    with Asked(root) as asked:
        settings = load_settings(flags=options.flags, repository=root)
        found = find_workflows(
            root,
            options.workflow,
            options.event,
            lambda name: event_from_repository(root, name, options.event_path, asked),
        )
    found = _with_jobs(found, options.jobs)
    request = _request(options, settings, root, found, secrets)
    _check(found, request)
    wanted = read_on_failure(options.on_failure)
    check_terminal(wanted, settings.vm.provider)
    output = cast("Output", options.output)
    multiple = len(found.workflows) > 1
    shown = make_reporter(
        output, options.quiet, sys.stdout, sys.stderr, _report_env(options), multiple=multiple
    )
    if wanted.let_in:
        shown = Curtain(shown)
    with measured(options.metrics_file) as metrics, shown as reporter:
        start_log(reporter, quiet=options.quiet, verbose=options.verbose)
        if found.note:
            reporter.log(f"cloche: {found.note}")
        return asyncio.run(
            Runs(found, request, settings, reporter, masker, metrics=metrics, on_failure=wanted).run()
        )


def _with_jobs(found: Found, jobs: tuple[str, ...]) -> Found:
    """Keep the workflows that have the jobs; UsageError if there are several and none has."""
    if not jobs or len(found.workflows) == 1:
        return found
    having = [workflow for workflow in found.workflows if workflow.jobs.keys() >= set(jobs)]
    if not having:
        known = ", ".join(sorted({job for workflow in found.workflows for job in workflow.jobs}))
        raise UsageError(
            f"none of these workflows has {' and '.join(map(repr, jobs))}", hint=f"their jobs: {known}"
        )
    return replace(found, workflows=having)


def _check(found: Found, request: RunRequest) -> None:
    """Refuse all before any runs, if one of them cannot be carried out. WorkflowError, UsageError."""
    diagnostics: list[Diagnostic] = []
    for workflow in found.workflows:
        try:
            check(workflow, request)
        except WorkflowError as error:
            diagnostics += error.diagnostics
    if diagnostics:
        raise WorkflowError(tuple(diagnostics))


def _request(
    options: RunOptions, settings: Settings, root: Path, found: Found, secrets: Mapping[str, str]
) -> RunRequest:
    vm = settings.vm
    image = options.image or DEFAULT_IMAGE
    return RunRequest(
        root=root,
        event=found.event,
        secrets=secrets,
        vars=options.variables,
        inputs=options.inputs,
        env=options.env,
        image_for=functools.partial(settings.image_for, default=image),
        jobs=options.jobs,
        matrix=options.matrix,
        skip_unsupported=options.skip_unsupported,
        include=options.include,
        spec=VmSpec(image, vm.cpus, vm.memory, vm.disk, cast("Network", vm.network)),
        most=Size(settings.allowed("cpus"), settings.allowed("memory")),
        settled=frozenset(key for key in ("cpus", "memory") if options.flags[f"vm.{key}"] is not None),
        setups=settings.setups,
        cleanups=settings.cleanups,
        stop_on_failure=settings.run.stop_on_failure,
        step_timeout=settings.run.step_timeout,
        time_limit=settings.limits.time,
        output_limit=settings.limits.output,
        debug=_debug(options, secrets),
        snapshots=cast("Mode", settings.snapshots.mode),
    )


def _debug(options: RunOptions, secrets: Mapping[str, str]) -> bool:
    """GitHub's switch for debug lines: a secret or variable of that name."""
    switch = "ACTIONS_STEP_DEBUG"
    return "true" in (secrets.get(switch), options.variables.get(switch), os.environ.get(switch))


def _report_env(options: RunOptions) -> Mapping[str, str]:
    return (
        {**os.environ, "ACTIONS_STEP_DEBUG": options.variables.get("ACTIONS_STEP_DEBUG", "")}
        if ("ACTIONS_STEP_DEBUG" in options.variables)
        else os.environ
    )


class _LogHandler(logging.Handler):
    """Cloche's log goes through the reporter, so that it never tears what is shown."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.log(self.format(record))


def start_log(reporter: Reporter, *, quiet: bool, verbose: bool) -> None:
    """Show Cloche's log: it is for operators: shown where standard error is kept (no terminal) or when asked for."""
    shown = verbose or not (quiet or sys.stderr.isatty())
    _log.setLevel(logging.INFO if shown else logging.WARNING)
    handler = _LogHandler(reporter)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.handlers = [handler]
    _log.propagate = False


def open_store(settings: Settings) -> RunStore:
    """Return where runs are kept that can go on."""
    from cloche.store.runs import RunStore

    return RunStore(runs_dir(), keep=settings.snapshots.keep_failed, size=settings.snapshots.size)


class Runs:
    """The runs of one command, side by side within the session limit."""

    def __init__(
        self,
        found: Found,
        request: RunRequest,
        settings: Settings,
        reporter: Reporter,
        masker: Masker,
        *,
        metrics: Metrics | None = None,
        rewind: Rewind | None = None,
        on_failure: OnFailure = NOTHING,
    ) -> None:
        self._on_failure = on_failure
        self._rewind = rewind
        self._found = found
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._masker = masker
        self._metrics = metrics
        self._executors: list[WorkflowExecutor] = []
        self._interrupts = 0

    async def run(self) -> int:
        """Run all; the exit code is the gravest of theirs."""
        self._catch_signals()
        if not borrows():  # else the daemon has cleared them
            await self._clear_leftovers()
            if runs_dir().exists():
                await asyncio.to_thread(open_store(self._settings).expire)
        async with open_sessions(self._settings, self._note) as sessions:
            places = asyncio.Semaphore(self._settings.session.max_concurrent)
            terms = self._terms(sessions)
            tasks = [self._one(workflow, sessions, places, terms) for workflow in self._found.workflows]
            codes = await asyncio.gather(*tasks)
        self._ignore_signals()
        return EXIT_INTERRUPTED if self._interrupts else max(codes, default=EXIT_SUCCESS)

    def _note(self, text: str) -> None:
        self._reporter.log(f"cloche: {text}")

    def _terms(self, sessions: SessionManager | LentSessions) -> Terms:
        keeper = None if isinstance(sessions, SessionManager) else sessions
        if self._on_failure.keep and keeper is None:
            raise no_keeper()
        return Terms(
            wanted=self._on_failure,
            curtain=self._reporter if isinstance(self._reporter, Curtain) else None,
            turn=asyncio.Lock(),
            keeper=keeper,
            snapshots=self._request.snapshots != "never",
            unwanted=lambda: self._interrupts > 0,
        )

    async def _one(
        self,
        workflow: Workflow,
        sessions: SessionManager | LentSessions,
        places: asyncio.Semaphore,
        terms: Terms,
    ) -> int:
        async with places, RunPorter(terms) as porter:
            if self._interrupts:
                return EXIT_INTERRUPTED
            executor = self._executor(sessions, porter)
            self._executors.append(executor)
            try:
                result = await executor.execute_workflow(workflow, self._request, self._rewind)
            except ClocheError as error:
                mask_error(error, self._masker)
                tell_error(error)
                return error.exit_code
            return EXIT_SUCCESS if result.conclusion in ("success", "skipped") else EXIT_WORKFLOW_FAILED

    def _executor(self, sessions: SessionManager | LentSessions, porter: RunPorter) -> WorkflowExecutor:
        subscribers: list[Subscriber] = [self._reporter, porter]
        if not isinstance(sessions, SessionManager):
            subscribers.append(sessions)  # the daemon counts runs too
        store = open_store(self._settings) if self._request.snapshots != "never" else None
        if self._metrics is None:
            return WorkflowExecutor(
                sessions, subscribers, notes=lambda: sessions.notes, store=store, visits=porter
            )
        subscribers.append(self._metrics)
        measured = self._metrics.measured(sessions)
        return WorkflowExecutor(
            measured, subscribers, notes=lambda: sessions.notes, store=store, visits=porter
        )

    async def _clear_leftovers(self) -> None:
        remove_stale()
        clear_doors()
        left = await collect_leftovers(SessionRegistry(sessions_dir()), vms_dir())
        if self._metrics:
            self._metrics.collected(left)
        for vm in left.vms:
            _log.info("Cleared VM %s of a run that was killed", vm.vm_id)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            loop.add_signal_handler(number, self._interrupt)

    @staticmethod
    def _ignore_signals() -> None:
        """All is given back and told: the command ends with what the runs came to, not by a signal that came late."""
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self) -> None:
        """Cancel as GitHub does at the first signal, stop at once at the second."""
        self._interrupts += 1
        if self._interrupts == 1:
            self._reporter.log("cloche: cancelling; once more to stop at once")
        for executor in self._executors:
            if self._interrupts == 1:
                executor.cancel()
            else:
                executor.abort()
