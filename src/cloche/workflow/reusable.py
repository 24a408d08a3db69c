"""Workflows that call others: reading the called files, and checking each call as GitHub does.

Source: actions/runner, ``WorkflowParser/Conversion/ReusableWorkflowsLoader`` and ``WorkflowTemplateConverter``;
docs.github.com, "Reuse workflows". Where files come from is the caller's affair: this room does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from typing import TYPE_CHECKING

from cloche.errors import Diagnostic, WorkflowError
from cloche.records import record
from cloche.workflow.calls import check_call
from cloche.workflow.findings import Findings, diagnostic
from cloche.workflow.nodes import Mapping, Scalar
from cloche.workflow.parse import Rules, read_checked, read_workflow
from cloche.workflow.permissions import Maximum, excess, policy_maximum, read_permissions
from cloche.workflow.templates import plain_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.errors import Position
    from cloche.workflow.model import Workflow
    from cloche.workflow.permissions import Levels

FileSource = Callable[[str], "str | bytes | None"]
"""The text of ``./path`` or ``owner/repository/path@ref``, ``None`` if there is no such file.

It may raise NotHere.
"""

FROM_CALLED = "Error from called workflow "
"""How the message about a called file begins; the place of its diagnostic is the call's."""

_MAX_CALLS = 1000
_MAX_SIZE = 8 * 1024 * 1024
_LOCAL = ("./", "$/")


class NotHere(Exception):  # noqa: N818 - a state of the file, not a mistake
    """Raised by a FileSource for a file that cannot be looked at from here: the call is left alone."""


@record
class CallRules:
    """GitHub's limits: levels of calls, different files (the caller included), jobs in all files.

    ``policy`` is what the repository lets a token do where no file says: one of permissions.POLICIES.
    Zero jobs are no limit.
    """

    depth: int = 10
    files: int = 51
    jobs: int = 0
    policy: str = "Write"


@record
class Unit:
    """A checked file: a workflow, or one that it calls.

    ``path`` is the file's own, or what the call names. ``permissions`` are those of its jobs that say nothing,
    ``None`` if neither it nor its callers do. ``calls`` are the called files by the calling job's id.
    """

    path: str
    root: Mapping
    workflow: Workflow
    permissions: Levels | None = None
    calls: dict[str, Unit] = field(default_factory=dict)
    length: int = 0

    @property
    def size(self) -> int:
        """How long its text is with the texts it calls, each as often as it is called."""
        return self.length + sum(called.size for called in self.calls.values())


class RefusedError(WorkflowError):
    """What the schema takes and GitHub refuses all the same; ``unit`` is the file as far as it could be read."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...], unit: Unit | None = None) -> None:
        super().__init__(diagnostics)
        self.unit = unit


class CallError(RefusedError):
    """Calls that go wrong. ``unplaced`` tells that GitHub names no file and place for it."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...], *, unplaced: bool = False) -> None:
        super().__init__(diagnostics)
        self.unplaced = unplaced


def read_unit(
    text: str | bytes,
    path: str,
    files: FileSource | None = None,
    rules: Rules | None = None,
    call_rules: CallRules | None = None,
) -> Unit:
    """Read and check a workflow file and, unless ``files`` is ``None``, every workflow it calls.

    Raises WorkflowError with everything wrong in the file (RefusedError if that is not the schema), else CallError
    with what is wrong with the first call that is.
    """
    rules, call_rules = rules or Rules(), call_rules or CallRules()
    unit = _read(text, path, rules)
    loader = _Loader(files, rules, call_rules)
    try:
        loader.count_jobs(unit)
        if files is not None:
            loader.load_calls(unit, (path,))
    except CallError as error:
        error.unit = unit
        raise
    return unit


def _read(text: str | bytes, path: str, rules: Rules) -> Unit:
    findings = Findings()
    root = read_checked(text, path, rules, findings)
    schema_passed = not findings
    workflow = read_workflow(root, path, findings)
    if not isinstance(root, Mapping):  # the schema has refused it
        raise WorkflowError(findings.found())
    permissions = read_permissions(root.get("permissions"))
    unit = Unit(path, root, workflow, permissions, length=len(text))
    if findings:
        raise RefusedError(findings.found(), unit if schema_passed else None)
    return unit


@record
class _Call:
    """One job that calls: its key, itself, and what it names."""

    key: Scalar
    job: Mapping
    uses: Scalar

    @property
    def ref(self) -> str:
        return plain_text(self.uses)


class _Loader:
    def __init__(self, files: FileSource | None, rules: Rules, call_rules: CallRules) -> None:
        self._files = files
        self._rules = rules
        self._call_rules = call_rules
        self._read: dict[str, Unit] = {}
        self._calls = 0
        self._size = 0
        self._jobs = 0

    def load_calls(self, caller: Unit, chain: tuple[str, ...]) -> None:
        """Read what ``caller`` calls, one call after the other; ``chain`` are the files that led here."""
        for call in _calls(caller.root):
            if len(chain) > self._call_rules.depth:
                raise self._too_deep(call, chain)
            self._calls += 1
            if self._calls > _MAX_CALLS:
                message = f"The workflow calls workflows more than {_MAX_CALLS} times"
                raise _error(message, call.uses.position, "call fewer, or call them from fewer places")
            try:
                called = self._load(caller, call)
            except NotHere:
                continue
            caller.calls[call.key.text] = called
            self._size += called.length
            if self._size > _MAX_SIZE:
                message = (
                    f"The workflows it calls have more than {_MAX_SIZE} characters, counted at each call"
                )
                raise _error(message, call.uses.position, "call fewer, or call them from fewer places")
            self.load_calls(called, (*chain, called.path))

    def count_jobs(self, unit: Unit) -> None:
        """Count the jobs of a file; CallError at the first that is one too many."""
        limit = self._call_rules.jobs
        for job in unit.workflow.jobs.values():
            self._jobs += 1
            if self._jobs == limit + 1 and limit > 0:
                message = f"Workflows may not contain more than {limit} jobs across all referenced files"
                raise _error(message, job.position)

    def _load(self, caller: Unit, call: _Call) -> Unit:
        ref = _qualified(call.ref, caller.path)
        try:
            called = self._unit(ref, call)
            findings = Findings()
            check_call(call.job, call.uses, called.root, findings)
            findings.check()
            self.count_jobs(called)
        except WorkflowError as error:
            raise CallError(tuple(_from_called(one, call) for one in error.diagnostics)) from None
        return self._with_permissions(caller, call, called)

    def _unit(self, ref: str, call: _Call) -> Unit:
        known = self._read.get(ref.lower())
        if known is not None:
            return known
        if len(self._read) + 2 > self._call_rules.files > 0:
            message = f"The maximum file count of {self._call_rules.files} has been exceeded"
            raise _error(message, call.uses.position)
        text = self._files(ref) if self._files else None
        if text is None:
            hint = f"there is no file {ref}"
            raise _error("Unable to find reusable workflow", call.uses.position, hint)
        self._read[ref.lower()] = _read(text, ref, self._rules)
        return self._read[ref.lower()]

    def _with_permissions(self, caller: Unit, call: _Call, called: Unit) -> Unit:
        """Return ``called`` for this call: with the permissions it gets here, none more than it may have."""
        written = read_permissions(call.job.get("permissions"))
        explicit = caller.permissions if written is None else written
        trusted = call.ref.startswith(_LOCAL)
        maximum = (
            policy_maximum(self._call_rules.policy, trusted=trusted)
            if explicit is None
            else Maximum(explicit)
        )
        findings = Findings()
        for who, requested in _requests(called, call.ref):
            if over := excess(requested, maximum):
                message = (
                    f"Error calling workflow '{call.ref}'. The {who} is requesting '{over[0]}', "
                    f"but is only allowed '{over[1]}'."
                )
                hint = f"give the job '{call.key.text}' the `permissions` that the called workflow asks for"
                findings.add(message, call.key.position, hint)
        if findings:
            raise CallError(findings.found())
        permissions = explicit if called.permissions is None else called.permissions
        return replace(called, permissions=permissions, calls={})

    def _too_deep(self, call: _Call, chain: tuple[str, ...]) -> CallError:
        message = f"Nested reusable workflow depth exceeded {self._call_rules.depth}."
        again = _qualified(call.ref, chain[-1])
        cycle = again.lower() in {file.lower() for file in chain[1:]} or again.removeprefix("./") == chain[0]
        hint = f"{again} calls itself, by way of others" if cycle else "call fewer levels of workflows"
        return CallError((diagnostic(message, call.uses.position, hint),), unplaced=True)


def _calls(root: Mapping) -> Iterator[_Call]:
    jobs = root.get("jobs")
    for key, job in jobs if isinstance(jobs, Mapping) else ():
        uses = job.get("uses") if isinstance(job, Mapping) else None
        if isinstance(job, Mapping) and isinstance(uses, Scalar):
            yield _Call(key, job, uses)


def _qualified(ref: str, caller: str) -> str:
    """Return what ``ref`` names when the file ``caller`` says it: ``./`` is the repository of that file."""
    if not ref.startswith(_LOCAL):
        return ref
    path = ref[2:]
    repository, at, version = caller.partition("@")
    if not at:
        return f"./{path}"
    return f"{'/'.join(repository.split('/')[:2])}/{path}@{version}"


def _requests(called: Unit, ref: str) -> Iterator[tuple[str, Levels]]:
    """Yield who in a called workflow asks for permissions, and for which."""
    if called.permissions is not None:
        yield f"workflow '{ref}'", called.permissions
    jobs = called.root.get("jobs")
    for key, job in jobs if isinstance(jobs, Mapping) else ():
        requested = read_permissions(job.get("permissions")) if isinstance(job, Mapping) else None
        if isinstance(job, Mapping) and requested is not None:
            yield f"nested job '{_name(key, job)}'", requested


def _name(key: Scalar, job: Mapping) -> str:
    name = job.get("name")
    text = plain_text(name) if isinstance(name, Scalar) else ""
    return text or key.text


def _from_called(one: Diagnostic, call: _Call) -> Diagnostic:
    """Return what is wrong in a called file as GitHub tells it: where it was called, then where it is."""
    place, inner = call.uses.position, one.position
    if inner.file == place.file:
        return one
    where = f"{inner.file} (Line: {inner.line}, Col: {inner.column})"
    message = f"{FROM_CALLED}{where}: {one.message}"
    return diagnostic(message, place, one.hint)


def _error(message: str, position: Position, hint: str | None = None) -> CallError:
    return CallError((diagnostic(message, position, hint),))
