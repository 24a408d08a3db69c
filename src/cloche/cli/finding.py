"""Which workflows to run: the one that was named, or all that the event triggers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import Diagnostic, UsageError, WorkflowError
from cloche.records import record
from cloche.workflow.parse import parse_workflow
from cloche.workflow.triggers import TriggerEvent, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloche.execution.gitstate import EventInfo
    from cloche.workflow.model import Workflow

FOLDER = ".github/workflows"
MAX_FILE = 1024 * 1024
"""Bytes of a workflow file that are read at most, plus one: what is larger the parser refuses."""
_SUFFIXES = (".yml", ".yaml")
_PREFERRED = ("push", "workflow_dispatch")


@record
class Found:
    """The workflows to run and the event they run for; ``note`` is what the user should know of the choice."""

    workflows: Sequence[Workflow]
    event: EventInfo
    note: str | None = None


def repository_root(directory: Path | None, start: Path) -> Path:
    """The folder that was named, else the nearest one upwards with ``.github/workflows`` or ``.git``."""
    if directory is not None:
        return directory.resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FOLDER).is_dir() or (folder / ".git").exists():
            return folder
    return start.resolve()


def find_workflows(
    root: Path, named: str | None, event: str | None, make_event: Callable[[str], EventInfo]
) -> Found:
    """Read the workflows to run. ``make_event`` tells what is known of an event by its name.

    Raises UsageError when there is none to run, WorkflowError with everything that is wrong in the files.
    """
    if named is not None:
        return _named(root, _path_of(root, named), event, make_event)
    workflows = _read_all(root, workflow_files(root, None, hint="cloche run FILE runs one from elsewhere"))
    info = make_event(event or "push")
    chosen = [workflow for workflow in workflows if matches(workflow, _trigger(info))]
    if not chosen:
        events = ", ".join(sorted({name for workflow in workflows for name in workflow.triggers}))
        raise UsageError(
            f"no workflow in {FOLDER} is triggered by {info.name} of {info.ref}",
            hint=f"name a workflow, or choose an event they declare with -e: {events}",
        )
    return Found(chosen, info)


def _named(root: Path, path: Path, event: str | None, make_event: Callable[[str], EventInfo]) -> Found:
    workflow = _read_all(root, [path])[0]
    declared = list(workflow.triggers)
    name = event or next((name for name in _PREFERRED if name in declared), declared[0])
    if name not in declared:
        raise UsageError(
            f"{workflow.path} is not triggered by {name}",
            hint=f"its events: {', '.join(declared)}; choose with -e",
        )
    info = make_event(name)
    note = None
    if not matches(workflow, _trigger(info)):
        note = f"{workflow.path} has filters that this {name} of {info.ref} does not pass; it runs because you named it"
    return Found([workflow], info, note)


def read_workflow(root: Path, path: str) -> Workflow:
    """Read the one workflow at ``path``, relative to ``root``. UsageError, WorkflowError."""
    return _read_all(root, [root / path])[0]


def workflow_files(
    root: Path, named: str | None, *, hint: str = "name a file that is elsewhere"
) -> list[Path]:
    """Return the file of the workflow that is named, else of all of the repository. UsageError if there is none."""
    if named is not None:
        return [_path_of(root, named)]
    files = sorted(p for p in (root / FOLDER).glob("*") if p.suffix in _SUFFIXES and p.is_file())
    if not files:
        raise UsageError(f"there is no workflow in {root / FOLDER}", hint=hint)
    return files


def _path_of(root: Path, named: str) -> Path:
    """A workflow by its path, from here or from the repository, or by its file's name there."""
    candidates = [Path(named), root / named, root / FOLDER / named]
    candidates += [root / FOLDER / f"{named}{suffix}" for suffix in _SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    known = sorted(p.name for p in (root / FOLDER).glob("*") if p.suffix in _SUFFIXES)
    hint = f"{FOLDER} has: {', '.join(known)}" if known else f"there is no {FOLDER} in {root}"
    raise UsageError(f"there is no workflow file {named!r}", hint=hint)


def _read_all(root: Path, files: list[Path]) -> list[Workflow]:
    workflows: list[Workflow] = []
    diagnostics: list[Diagnostic] = []
    for file in files:
        try:
            workflows.append(parse_workflow(_read(file), _shown(root, file)))
        except WorkflowError as error:
            diagnostics += error.diagnostics
    if diagnostics:
        raise WorkflowError(tuple(diagnostics))
    return workflows


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None


def _shown(root: Path, file: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)


def _trigger(info: EventInfo) -> TriggerEvent:
    return TriggerEvent(info.name, info.action, info.ref, info.base_ref or None, info.changed)
