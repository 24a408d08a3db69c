"""Carrying out what ``cloche rewind`` was asked: finding the cut, seeing that it still fits, going on from it."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cloche.cli.curtain import Curtain
from cloche.cli.finding import Found, read_workflow
from cloche.cli.masked import mask_error
from cloche.cli.running import Runs, open_store, start_log
from cloche.cli.visiting import NOTHING, OnFailure, check_terminal
from cloche.config import load_settings
from cloche.errors import ClocheError, ProviderError, UsageError
from cloche.execution.checkpoint import Checkpoint
from cloche.execution.cuts import Rewind
from cloche.execution.executor import check
from cloche.execution.masking import Masker
from cloche.execution.sameness import first_change
from cloche.records import record
from cloche.report import make_reporter
from cloche.vm.snapshot import VmSnapshot

if TYPE_CHECKING:
    from cloche.config import Settings
    from cloche.execution.resume import Side
    from cloche.report.factory import Output
    from cloche.store.runs import Cut, KeptRun
    from cloche.workflow.model import Workflow


@record
class RewindOptions:
    """The command line of ``cloche rewind``."""

    run: str
    to: str | None
    side: Side | None
    output: str
    quiet: bool
    verbose: bool
    shell: bool = False


def rewind_run(options: RewindOptions) -> int:
    """Go on with a run and return the exit code. ClocheError for what keeps it from going on."""
    store = open_store(load_settings())
    store.expire()
    run = store.find(options.run)
    with store.held(run):  # for as long as a VM may have files of the cut
        return go_on(options, run, choose_cut(run, options.to))


def choose_cut(run: KeptRun, wanted: str | None) -> Cut:
    """Return the cut to go on from: by default, before the step that failed first. UsageError."""
    if wanted is None:
        return run.failed_cut
    found = [cut for cut in run.cuts if cut.facts.answers(wanted)]
    places = sorted({cut.facts.shown for cut in found})
    if not found:
        there = ", ".join(cut.facts.shown for cut in run.cuts)
        raise UsageError(
            f"{run.facts.run_id} was not kept as it was before {wanted!r}",
            hint=f"it was before {there}; `--snapshot each-step` keeps it before each step",
        )
    if len(places) > 1:
        raise UsageError(
            f"{wanted!r} may be any of {', '.join(places)}", hint="write which leg: 'JOB (LEG)/STEP'"
        )
    return found[-1]


def go_on(options: RewindOptions, run: KeptRun, cut: Cut, workflow: Workflow | None = None) -> int:
    """Go on with a run from a cut, as its workflow says now or as ``workflow`` does; the exit code. ClocheError.

    ``workflow`` is what the caller has seen to fit what was carried out.
    """
    root = Path(run.facts.root)
    if not root.is_dir():
        raise UsageError(f"the repository of {run.facts.run_id} is gone: there is no {root}")
    checkpoint = Checkpoint.from_json(cut.checkpoint())
    if workflow is None:
        workflow = read_workflow(root, checkpoint.path)
        check_unchanged(run, checkpoint, workflow)
    snapshot = VmSnapshot.load(cut.folder)
    settings = load_settings(flags={"vm.provider": snapshot.provider}, repository=root)
    return _run(options, settings, workflow, Rewind(checkpoint, snapshot, options.side))


def check_unchanged(run: KeptRun, checkpoint: Checkpoint, workflow: Workflow) -> None:
    """Refuse what was carried out otherwise than the workflow says now, and tell what can be had. UsageError."""
    change = first_change(checkpoint.before, workflow)
    if change is None:
        return
    place = checkpoint.place
    earlier = [cut for cut in run.cuts if _fits(cut, workflow) and cut.facts.at < checkpoint.at]
    hint = "undo that, or run the workflow anew"
    if earlier:
        hint = f"undo that, or go back further: cloche rewind {run.facts.run_id} --to '{earlier[-1].facts.shown}'"
    file_step = place.step - len(checkpoint.request["setups"])
    leg = " in another leg of it" if change.job == place.job and change.step >= file_step else ""
    raise UsageError(
        f"{change.what} has been changed since it was carried out{leg}, before step {place.step} of job '{place.job}'",
        hint=hint,
        position=change.position,
    )


def _fits(cut: Cut, workflow: Workflow) -> bool:
    try:
        return first_change(Checkpoint.from_json(cut.checkpoint()).before, workflow) is None
    except ProviderError:
        return False


def _run(options: RewindOptions, settings: Settings, workflow: Workflow, rewind: Rewind) -> int:
    default = str(rewind.checkpoint.request["spec"]["image"])
    request = rewind.checkpoint.make_request(functools.partial(settings.image_for, default=default))
    masker = Masker()
    masker.load(rewind.checkpoint.masks)
    try:
        check(workflow, request)
    except ClocheError as error:
        mask_error(error, masker)
        raise
    wanted = OnFailure(before=rewind.checkpoint.place) if options.shell else NOTHING
    check_terminal(wanted, settings.vm.provider)
    output = cast("Output", options.output)
    shown = make_reporter(output, options.quiet, sys.stdout, sys.stderr, os.environ, multiple=False)
    with Curtain(shown) if options.shell else shown as reporter:
        start_log(reporter, quiet=options.quiet, verbose=options.verbose)
        found = Found([workflow], request.event)
        runs = Runs(found, request, settings, reporter, masker, rewind=rewind, on_failure=wanted)
        return asyncio.run(runs.run())
