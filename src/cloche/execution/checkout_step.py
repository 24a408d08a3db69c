"""``uses: actions/checkout``, carried out by Cloche itself for the repository at hand.

Inputs and outputs: https://github.com/actions/checkout. Inputs that would fetch something else are refused when the
workflow is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.execution.checkout import CheckoutError, CheckoutSpec, stream
from cloche.execution.contexts import SERVER
from cloche.execution.gitstate import NO_COMMIT
from cloche.execution.line_commands import CommandReader
from cloche.execution.publisher import StepResult
from cloche.execution.run_step import environment, run_program
from cloche.execution.step_output import StepOutputReader
from cloche.execution.step_scope import StepError
from cloche.vm.guest import ExecSpec
from cloche.workflow.evaluate import text_mapping

if TYPE_CHECKING:
    from cloche.execution.control import Why
    from cloche.execution.step_scope import StepScope
    from cloche.vm.guest import ExitStatus

_MAKE = ("mkdir", "-p", "--")
_EMPTY = ("sh", "-c", 'rm -rf -- "$1" && mkdir -p -- "$1"', "sh")


async def run_checkout(scope: StepScope) -> StepResult:
    """Carry out ``actions/checkout``.

    Raises StepError and EvaluationError for what keeps it from running, GuestLost and GuestTimeout when the
    guest is gone.
    """
    node = scope.step.with_
    written = await scope.evaluate(lambda known: text_mapping(node, known)) if node else {}
    inputs = {name.lower(): value.strip() for name, value in written.items()}
    folder = _folder(scope, inputs.get("path", ""))
    status, why = await _make_folder(scope, folder, clean=_is_true(inputs.get("clean", ""), default=True))
    if why == "ended":
        sent: dict[str, str] | None = None if scope.state.sent is None else {}
        why = await _send(scope, folder, _spec(scope, inputs), sent)
        if sent is not None and scope.state.sent is not None:
            scope.state.sent[folder] = sent
    match why:
        case "timeout":
            scope.tell_timed_out()
            return StepResult("failure", "failure", boot_id=status.boot_id or None)
        case "cancelled":
            scope.tell_cancelled()
            return StepResult("cancelled", "cancelled", boot_id=status.boot_id or None)
    scope.state.checkouts.add(folder)
    event = scope.setup.event
    commit = "no commit" if event.sha == NO_COMMIT else event.sha
    scope.publisher.output(f"Checked out the working tree at {commit} ({event.ref_name})\n")
    outputs = {"ref": event.ref, "commit": event.sha}
    return StepResult("success", "success", 0, status.boot_id or None, outputs)


def _folder(scope: StepScope, path: str) -> str:
    workspace = scope.setup.workspace
    folder = posixpath.normpath(posixpath.join(workspace, path))
    if folder != workspace and not folder.startswith(f"{workspace}/"):
        raise StepError(f"Repository path '{folder}' is not under '{workspace}'")
    return folder


def _spec(scope: StepScope, inputs: dict[str, str]) -> CheckoutSpec:
    depth = inputs.get("fetch-depth", "") or "1"
    return CheckoutSpec(
        root=scope.setup.root,
        remote=f"{SERVER}/{scope.setup.event.repository}",
        depth=int(depth)
        if depth.isascii() and depth.isdigit()
        else 0,  # as the action takes what is no number
        tags=_is_true(inputs.get("fetch-tags", ""), default=False),
        include=scope.setup.include,
    )


def _is_true(text: str, *, default: bool) -> bool:
    return text.lower() == "true" if text else default


async def _make_folder(scope: StepScope, folder: str, *, clean: bool) -> tuple[ExitStatus, Why]:
    """Make the folder, and empty it as the action does unless it holds an earlier checkout that is to stay."""
    keep = scope.state.untouched or (folder in scope.state.checkouts and not clean)
    setup = scope.setup
    output = StepOutputReader(scope.publisher, setup.masker, setup.workspace, CommandReader(), setup.output)
    spec = ExecSpec(argv=(*(_MAKE if keep else _EMPTY), folder), env=environment(scope))
    ended = await run_program(scope, spec, output)
    if ended.why == "ended" and ended.status.code:
        raise StepError(ended.status.error or f"The folder '{folder}' could not be made.")
    return ended.status, ended.why


async def _send(scope: StepScope, folder: str, spec: CheckoutSpec, sent: dict[str, str] | None) -> Why:
    """Send the tree, unless the step's time is up or the job is cancelled meanwhile."""

    async def send() -> None:
        async with contextlib.aclosing(stream(spec, sent)) as pieces:
            await scope.root.put(folder, pieces)

    work = asyncio.create_task(send())
    try:
        why = await scope.watch(work)
        if why == "ended":
            await work
    except (GuestLost, GuestTimeout):
        raise
    except (CheckoutError, GuestError) as wrong:
        raise StepError("\n".join(filter(None, (wrong.message, wrong.hint)))) from wrong
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
    return why
