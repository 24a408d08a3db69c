"""Everything that is wrong with one file, for people: GitHub's errors, and what Cloche does not carry out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cloche.check.files import folder_source, read_file
from cloche.check.verdict import ACTION_FILES
from cloche.errors import Diagnostic, Position, UsageError, WorkflowError
from cloche.records import record
from cloche.workflow.action import read_action
from cloche.workflow.findings import Findings
from cloche.workflow.reusable import read_unit
from cloche.workflow.server_rules import check_server_rules
from cloche.workflow.unsupported import refuse_unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloche.workflow.reusable import FileSource, Unit

Severity = Literal["error", "warning"]


@record
class Finding:
    """One thing to tell; a warning does not make the file wrong."""

    severity: Severity
    diagnostic: Diagnostic


@record
class Judged:
    """A file with what was found in it and in what it calls; ``texts`` are the files' texts by name."""

    path: str
    findings: tuple[Finding, ...]
    texts: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether GitHub takes the file."""
        return all(one.severity != "error" for one in self.findings)


def judge(path: Path, root: Path) -> Judged:
    """Check the file at ``path`` of the repository at ``root``. A file that cannot be read is an error in it."""
    absolute = path.absolute()
    home = root.absolute()
    shown = str(absolute.relative_to(home)) if absolute.is_relative_to(home) else str(path)
    try:
        content = read_file(path)
    except UsageError as error:
        wrong = Diagnostic(error.message, Position(shown, 1, 1))
        return Judged(shown, (Finding("error", wrong),), {})
    texts = {shown: content}
    try:
        warnings = _warnings(content, shown, _remembering(folder_source(root), texts))
        findings = [Finding("warning", one) for one in warnings]
    except WorkflowError as error:
        findings = [Finding("error", one) for one in error.diagnostics]
    readable = {name: text.decode(errors="replace") for name, text in texts.items()}
    return Judged(shown, tuple(findings), readable)


def _warnings(content: bytes, shown: str, files: FileSource) -> tuple[Diagnostic, ...]:
    """Return what Cloche does not carry out of a good file. WorkflowError for one that is not good."""
    if shown.rpartition("/")[2] in ACTION_FILES:
        read_action(content, shown)
        return ()
    unit = read_unit(content, shown, files)
    findings = Findings()
    _check_servers_rules(unit, findings)
    findings.check()
    refuse_unsupported(unit.root, findings)
    return findings.found()


def _check_servers_rules(unit: Unit, findings: Findings) -> None:
    check_server_rules(unit.root, findings)
    for called in unit.calls.values():
        _check_servers_rules(called, findings)


def _remembering(source: FileSource, texts: dict[str, bytes]) -> FileSource:
    def remembered(ref: str) -> str | bytes | None:
        found = source(ref)
        if isinstance(found, bytes):
            texts[ref] = found
        return found

    return remembered
