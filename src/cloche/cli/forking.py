"""Carrying out what ``cloche fork`` was asked: attempts side by side within the session limit; what became of them."""

from __future__ import annotations

import asyncio
import functools
import json
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.cli.compose import open_sessions
from cloche.cli.console import note
from cloche.cli.finding import read_workflow
from cloche.cli.rewinding import RewindOptions, check_unchanged, choose_cut, go_on
from cloche.cli.running import open_store
from cloche.config import load_settings
from cloche.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_WORKFLOW_FAILED, ClocheError, UsageError
from cloche.execution.attempts import Attempt, Watcher, with_script
from cloche.execution.checkpoint import Checkpoint
from cloche.execution.cuts import Rewind
from cloche.execution.executor import WorkflowExecutor
from cloche.records import record
from cloche.units import format_duration
from cloche.vm.snapshot import VmSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.config import Settings
    from cloche.execution.executor import Sessions
    from cloche.store.runs import Cut, KeptRun
    from cloche.workflow.model import Workflow

_SHOWN_LINES = 12
_SHOWN_FILES = 20
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@record
class ForkOptions:
    """The command line of ``cloche fork``."""

    run: str
    scripts: tuple[str, ...]
    at: str | None
    pick: int | None
    output: str


def fork_run(options: ForkOptions) -> int:
    """Make the attempts and return the exit code. ClocheError for what keeps them from being made."""
    if options.pick is not None and options.pick > len(options.scripts):
        raise UsageError(f"there is no attempt {options.pick}: {len(options.scripts)} are to be made")
    store = open_store(load_settings())
    store.expire()
    run = store.find(options.run)
    with store.held(run):
        return _fork(options, run, choose_cut(run, options.at))


def _fork(options: ForkOptions, run: KeptRun, cut: Cut) -> int:
    root = Path(run.facts.root)
    checkpoint = Checkpoint.from_json(cut.checkpoint())
    workflow = read_workflow(root, checkpoint.path)
    check_unchanged(run, checkpoint, workflow)
    snapshot = VmSnapshot.load(cut.folder)
    settings = load_settings(flags={"vm.provider": snapshot.provider}, repository=root)
    rewind = Rewind(checkpoint, snapshot, "ours")
    attempts = asyncio.run(_Attempts(options.scripts, settings, workflow, rewind).make())
    if attempts is None:
        return EXIT_INTERRUPTED
    _tell(options, cut, attempts)
    return _end(options, run, cut, workflow, attempts)


def _end(
    options: ForkOptions, run: KeptRun, cut: Cut, workflow: Workflow, attempts: Sequence[Attempt]
) -> int:
    if options.pick is None:
        succeeded = any(attempt.conclusion == "success" for attempt in attempts)
        return EXIT_SUCCESS if succeeded else EXIT_WORKFLOW_FAILED
    picked = attempts[options.pick - 1]
    if picked.conclusion != "success":
        note(f"attempt {options.pick} did not succeed: the run does not go on with it")
        return EXIT_WORKFLOW_FAILED
    checkpoint = Checkpoint.from_json(cut.checkpoint())
    changed = with_script(workflow, checkpoint.place, _setups(checkpoint), picked.script, look=False)
    shown = "jsonl" if options.output == "json" else "console"
    rewinding = RewindOptions(options.run, options.at, "ours", shown, quiet=False, verbose=False)
    return go_on(rewinding, run, cut, changed)


def _setups(checkpoint: Checkpoint) -> int:
    return len(checkpoint.request["setups"])


class _Attempts:
    """The attempts of one command."""

    def __init__(
        self, scripts: Sequence[str], settings: Settings, workflow: Workflow, rewind: Rewind
    ) -> None:
        checkpoint = rewind.checkpoint
        default = str(checkpoint.request["spec"]["image"])
        request = checkpoint.make_request(functools.partial(settings.image_for, default=default))
        self._request = replace(request, snapshots="never")
        self._settings = settings
        self._rewind = rewind
        self._executors: list[WorkflowExecutor] = []
        self._interrupted = False
        place, setups = checkpoint.place, _setups(checkpoint)
        self._workflows = [
            (script, with_script(workflow, place, setups, script, look=True)) for script in scripts
        ]

    async def make(self) -> list[Attempt] | None:
        """Make them all; ``None`` when that was interrupted."""
        for number in _ENDING:
            asyncio.get_running_loop().add_signal_handler(number, self._interrupt)
        places = asyncio.Semaphore(self._settings.session.max_concurrent)
        async with open_sessions(self._settings, note) as sessions:
            made = await asyncio.gather(
                *(
                    self._one(number, script, workflow, sessions, places)
                    for number, (script, workflow) in enumerate(self._workflows, start=1)
                )
            )
        return None if self._interrupted else made

    async def _one(
        self, number: int, script: str, workflow: Workflow, sessions: Sessions, places: asyncio.Semaphore
    ) -> Attempt:
        watcher = Watcher(script, self._rewind.checkpoint.place)
        executor = WorkflowExecutor(sessions, [watcher])
        watcher.done = executor.abort
        async with places:
            if self._interrupted:
                return watcher.attempt("interrupted")
            self._executors.append(executor)
            error = None
            try:
                await executor.execute_workflow(workflow, self._request, self._rewind)
            except ClocheError as wrong:
                error = wrong.message
        attempt = watcher.attempt(error)
        note(f"attempt {number} of {len(self._workflows)}: {_verdict(attempt)}")
        return attempt

    def _interrupt(self) -> None:
        self._interrupted = True
        for executor in self._executors:
            executor.abort()


def _verdict(attempt: Attempt) -> str:
    if attempt.error is not None:
        return f"could not be made: {attempt.error}"
    code = f", exit code {attempt.exit_code}" if attempt.exit_code else ""
    return f"{attempt.conclusion}{code}, {format_duration(attempt.seconds)}"


def _tell(options: ForkOptions, cut: Cut, attempts: Sequence[Attempt]) -> None:
    if options.output == "json":
        made = [{"number": number, **asdict(attempt)} for number, attempt in enumerate(attempts, start=1)]
        sys.stdout.write(json.dumps({"at": cut.facts.shown, "attempts": made}, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(cut, attempts)) + "\n")
    sys.stdout.flush()


def _lines(cut: Cut, attempts: Sequence[Attempt]) -> Iterator[str]:
    noun = "attempt" if len(attempts) == 1 else "attempts"
    yield f"{len(attempts)} {noun} instead of {cut.facts.shown} {cut.facts.step_name!r}"
    for number, attempt in enumerate(attempts, start=1):
        mark = "✓" if attempt.conclusion == "success" else "✗"
        yield f"{mark} {number}  {' '.join(attempt.script.split())}"
        yield f"     {_verdict(attempt)}"
        yield from (f"     │ {line}" for line in attempt.output.splitlines()[-_SHOWN_LINES:])
    yield from _differing_files(attempts)


def _differing_files(attempts: Sequence[Attempt]) -> Iterator[str]:
    """Tell of the files that not all attempts wrote alike."""
    known = [(number, attempt.files) for number, attempt in enumerate(attempts, start=1) if attempt.files]
    names = sorted({name for _, files in known for name in files})
    differing = [name for name in names if len({(attempt.files or {}).get(name) for attempt in attempts}) > 1]
    if not differing:
        return
    yield "files that differ"
    for name in differing[:_SHOWN_FILES]:
        groups: dict[str, list[str]] = {}
        for number, files in known:
            if name in files:
                groups.setdefault(files[name], []).append(str(number))
        yield f"  {name}: " + "; ".join(
            f"{', '.join(numbers)} ({digest[:8]})" for digest, numbers in groups.items()
        )
    if len(differing) > _SHOWN_FILES:
        yield f"  and {len(differing) - _SHOWN_FILES} more"
