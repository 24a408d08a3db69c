"""What GitHub refuses later than its parser does: filters, shells and references to workflows that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.workflow.filters import PatternError, compile_pattern
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import has_expression, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node

SHELLS = ("bash", "sh", "pwsh", "powershell", "cmd", "python")
PATTERN_FILTERS = ("branches", "tags", "paths")

_REFERENCE_HINT = "write ./.github/workflows/name.yml, or owner/repository/.github/workflows/name.yml@ref"
_REFERENCE_PARTS = len(["owner", "repository", ".github", "workflows", "name.yml"])


def check_server_rules(root: Node, findings: Findings) -> None:
    """Note opposite filters side by side, patterns that are none, shells nobody knows, calls of no workflow."""
    for _, config in _entries(_at(root, "on")):
        _check_filters(config, findings)
    _check_shell(_at(_at(_at(root, "defaults"), "run"), "shell"), findings)
    for _, job in _entries(_at(root, "jobs")):
        _check_shell(_at(_at(_at(job, "defaults"), "run"), "shell"), findings)
        _check_reference(_at(job, "uses"), findings)
        steps = _at(job, "steps")
        for step in steps.items if isinstance(steps, Sequence) else ():
            if _at(step, "run") is not None:
                _check_shell(_at(step, "shell"), findings)


def _check_filters(config: Node, findings: Findings) -> None:
    for name in PATTERN_FILTERS:
        written = [(key, value) for key, value in _entries(config) if key.text in {name, f"{name}-ignore"}]
        for _, patterns in written:
            _check_patterns(patterns, findings)
        if len(written) > 1:
            message = f"You may only define one of `{name}` and `{name}-ignore` for a single event"
            hint = f"write what to leave out as `{name}` patterns that start with !"
            findings.add(message, written[1][0].position, hint)


def _check_patterns(node: Node, findings: Findings) -> None:
    for item in node.items if isinstance(node, Sequence) else (node,):
        if not isinstance(item, Scalar) or item.value is None:
            continue
        try:
            compile_pattern(plain_text(item))
        except PatternError as error:
            hint = "put a backslash before a character that is meant as itself"
            findings.add(f"Invalid filter pattern: {error}", item.position, hint)


def _check_shell(shell: Node | None, findings: Findings) -> None:
    if not isinstance(shell, Scalar) or has_expression(shell):
        return
    text = plain_text(shell)
    if text and text not in SHELLS and "{0}" not in text:
        message = (
            "Invalid shell option. Shell must be a valid built-in "
            "(bash, sh, cmd, powershell, pwsh, python) or a format string containing '{0}'"
        )
        findings.add_unknown(message, shell.position, text, SHELLS)


def _check_reference(uses: Node | None, findings: Findings) -> None:
    """Note a called workflow that is named as none can be."""
    text = plain_text(uses) if isinstance(uses, Scalar) else ""
    if uses is not None and text and (problem := _wrong_reference(text)):
        findings.add(f"invalid value workflow reference: {problem}", uses.position, _REFERENCE_HINT)


def _wrong_reference(text: str) -> str | None:
    path, at, version = text.partition("@")
    if path.startswith(("./", "$/")):
        if at:
            return "cannot specify version when calling local workflows"
        path = f"owner/repository/{path[2:]}"
    elif not at or not version:
        return "no version specified"
    parts = path.split("/")
    if len(parts) < _REFERENCE_PARTS or not all(parts):
        return "references to workflows must be prefixed with format 'owner/repository/' or './' for local workflows"
    if parts[2:4] != [".github", "workflows"] or len(parts) > _REFERENCE_PARTS:
        return "references to workflows must be rooted in '.github/workflows'"
    return None


def _entries(node: Node | None) -> Iterator[tuple[Scalar, Node]]:
    return iter(node) if isinstance(node, Mapping) else iter(())


def _at(node: Node | None, key: str) -> Node | None:
    return node.get(key) if isinstance(node, Mapping) else None
