"""One call of a reusable workflow against what the called file says it takes: inputs and secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.expressions.values import fold
from cloche.workflow.check import check_tree
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.schema import Allowed, BooleanValue, Definition, NumberValue, StringValue
from cloche.workflow.templates import plain_text

if TYPE_CHECKING:
    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node

_CALL = "workflow_call"
_ANYWHERE = Allowed(frozenset({"github", "inputs", "vars", "needs", "strategy", "matrix"}))
_TYPES: dict[str, Definition] = {
    "boolean": BooleanValue(allowed=_ANYWHERE),
    "number": NumberValue(allowed=_ANYWHERE),
    "string": StringValue(allowed=_ANYWHERE),
}


def check_call(job: Mapping, uses: Scalar, called: Mapping, findings: Findings) -> None:
    """Note what is wrong with the call that ``job`` makes of the checked file ``called``."""
    on = called.get("on")
    if not _is_callable(on):
        message = "workflow_call key is not defined in the referenced workflow."
        hint = "write `workflow_call:` under `on:` of the called workflow"
        findings.add(message, on.position if on else called.position, hint)
        return
    parts = on.get(_CALL) if isinstance(on, Mapping) else None
    _check_inputs(_entries(parts, "inputs"), _entries(job, "with"), uses, findings)
    secrets = job.get("secrets")
    if not isinstance(secrets, Scalar):  # `inherit` gives what there is
        _check_secrets(_entries(parts, "secrets"), _entries(job, "secrets"), uses, findings)


def _is_callable(on: Node | None) -> bool:
    if isinstance(on, Mapping):
        return on.get(_CALL) is not None
    items = on.items if isinstance(on, Sequence) else (on,)
    return any(isinstance(item, Scalar) and plain_text(item) == _CALL for item in items)


_Entries = dict[str, tuple[Scalar, "Node"]]


def _entries(node: Node | None, key: str) -> _Entries:
    """Return the entries of the mapping at ``key`` by their names without case; none if there is none."""
    mapping = node.get(key) if isinstance(node, Mapping) else None
    if not isinstance(mapping, Mapping):
        return {}
    return {fold(plain_text(name)): (name, value) for name, value in mapping}


def _check_inputs(defined: _Entries, given: _Entries, uses: Scalar, findings: Findings) -> None:
    for folded, (name, spec) in defined.items():
        written = spec.get("type") if isinstance(spec, Mapping) else None
        type_ = _TYPES[plain_text(written)] if isinstance(written, Scalar) else StringValue()
        default = spec.get("default") if isinstance(spec, Mapping) else None
        if default is not None:
            check_tree(default, type_, findings)
        if folded in given:
            check_tree(given[folded][1], type_, findings)
        elif _is_required(spec):
            message = f"Input {plain_text(name)} is required, but not provided while calling."
            findings.add(message, uses.position, "give it under `with`")
    _check_unknown("input", defined, given, findings)


def _check_secrets(defined: _Entries, given: _Entries, uses: Scalar, findings: Findings) -> None:
    for folded, (name, spec) in defined.items():
        if folded not in given and _is_required(spec):
            message = f"Secret {plain_text(name)} is required, but not provided while calling."
            findings.add(message, uses.position, "give it under `secrets`, or write `secrets: inherit`")
    _check_unknown("secret", defined, given, findings)


def _is_required(spec: Node) -> bool:
    required = spec.get("required") if isinstance(spec, Mapping) else None
    return isinstance(required, Scalar) and required.value is True


def _check_unknown(kind: str, defined: _Entries, given: _Entries, findings: Findings) -> None:
    known = [plain_text(name) for name, _ in defined.values()]
    for folded, (name, value) in given.items():
        if folded not in defined:
            text = plain_text(name)
            message = f"Invalid {kind}, {text} is not defined in the referenced workflow."
            findings.add_unknown(message, value.position, text, known)
