"""A checked workflow in the normalised form that GitHub's parsers share: what it means, free of how it is written.

The form is that of ``WorkflowTemplate`` in actions/runner (C#) and actions/languageservices (TypeScript), as
JSON; ``events`` is the latter's alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloche.workflow.conditions import IMPLIED, read_condition
from cloche.workflow.definitions import (
    CALLED_JOB_KEYS,
    JOB_CONDITION,
    JOB_FACTORY,
    STEP_CONDITION,
    STEP_KEYS,
    WORKFLOW_JOB,
    WORKFLOW_ROOT,
)
from cloche.workflow.definitions_on import WORKFLOW_CALL_PARTS
from cloche.workflow.events import events_of, input_types
from cloche.workflow.findings import Findings
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.permissions import read_permissions
from cloche.workflow.schema import Anything, MappingValue
from cloche.workflow.step_ids import step_ids
from cloche.workflow.templates import plain_text
from cloche.workflow.tokens import TokenWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloche.workflow.nodes import Node
    from cloche.workflow.permissions import Levels
    from cloche.workflow.reusable import Unit
    from cloche.workflow.schema import Allowed

_NAMES = {
    "wait": "Wait",
    "wait-all": "Wait for all",
    "cancel": "Cancel",
    "parallel": "Parallel group",
}
_CALLED_ROOT_KEYS = {"env": "env", "defaults": "defaults", "concurrency": "embedded-concurrency"}
_CALL_KEYS = {"inputs": "input-definitions", "secrets": "secret-definitions", "outputs": "outputs"}
_JOB_TOKENS = (
    "strategy",
    "continue-on-error",
    "timeout-minutes",
    "cancel-timeout-minutes",
    "concurrency",
    "env",
    "environment",
    "defaults",
    "runs-on",
    "container",
    "services",
    "outputs",
    "snapshot",
)
_STEP_TOKENS = (
    "name",
    "continue-on-error",
    "timeout-minutes",
    "env",
    "working-directory",
    "shell",
    "run",
    "uses",
    "with",
)


def template_of(unit: Unit, *, include_source: bool = False) -> dict[str, Any]:
    """Return the template of a workflow that has no errors, with those of the workflows it calls.

    ``include_source`` gives each token its place: the number of its file in ``file-table``, line and column.
    """
    return _Template(TokenWriter(include_source=include_source)).workflow(unit)


class _Template:
    def __init__(self, writer: TokenWriter) -> None:
        self._writer = writer

    def workflow(self, unit: Unit) -> dict[str, Any]:
        root = unit.root
        self._writer.file(unit.path)
        template: dict[str, Any] = {"events": events_of(root.get("on"))}
        if types := input_types(root.get("on")):
            template["input-types"] = types
        template |= self._tokens(root, WORKFLOW_ROOT, ("env", "defaults", "concurrency"))
        if unit.permissions is not None:
            template["permissions"] = unit.permissions
        template["jobs"] = self._jobs(unit)
        if self._writer.include_source:
            template["file-table"] = self._writer.files
        return template

    def _tokens(self, node: Mapping, definition: MappingValue, keys: Iterable[str]) -> dict[str, Any]:
        return {
            key: self._writer.token(value, definition.properties.get(key, Anything()))
            for key in keys
            if (value := node.get(key)) is not None
        }

    def _jobs(self, unit: Unit) -> list[dict[str, Any]]:
        jobs = unit.root.get("jobs")
        entries = iter(jobs) if isinstance(jobs, Mapping) else iter(())
        return [self._job(key, node, unit) for key, node in entries if isinstance(node, Mapping)]

    def _job(self, key: Scalar, node: Mapping, unit: Unit) -> dict[str, Any]:
        calls = node.get("uses") is not None
        job: dict[str, Any] = {"type": "reusableWorkflowJob" if calls else "job"}
        job["id"] = self._writer.text(plain_text(key), key.position)
        name = node.get("name")
        named = isinstance(name, Scalar) and plain_text(name)
        job["name"] = (
            self._writer.token(name, JOB_FACTORY.properties["name"]) if name and named else job["id"]
        )
        needs = node.get("needs")
        if needs is not None or calls:
            job["needs"] = list(self._texts(needs))
        job["if"] = self._condition(node.get("if"), JOB_CONDITION)
        permissions = read_permissions(node.get("permissions"))
        called = unit.calls.get(key.text)
        if calls:
            return job | self._called(node, called, unit.permissions if permissions is None else permissions)
        effective = unit.permissions if permissions is None else permissions
        if effective is not None:
            job["permissions"] = effective
        job |= self._tokens(node, JOB_FACTORY, _JOB_TOKENS)
        if steps := self._steps(node.get("steps")):
            job["steps"] = steps
        return job

    def _called(self, node: Mapping, called: Unit | None, permissions: Levels | None) -> dict[str, Any]:
        job = self._tokens(node, WORKFLOW_JOB, ("concurrency", "strategy"))
        job |= self._renamed(node, WORKFLOW_JOB, CALLED_JOB_KEYS)
        if job.get("secret-values") is not None and not isinstance(node.get("secrets"), Mapping):
            del job["secret-values"]
            job["inherit-secrets"] = True
        if called is None:
            return job | ({} if permissions is None else {"permissions": permissions}) | {"jobs": []}
        job |= self._renamed(called.root, WORKFLOW_ROOT, _CALLED_ROOT_KEYS)
        job |= self._definitions(called.root)
        if called.permissions is not None:
            job["permissions"] = called.permissions
        self._writer.file(called.path)
        return job | {"jobs": self._jobs(called)}

    def _definitions(self, root: Mapping) -> dict[str, Any]:
        """Return what the called workflow's ``workflow_call`` takes and gives."""
        on = root.get("on")
        call = on.get("workflow_call") if isinstance(on, Mapping) else None
        if not isinstance(call, Mapping):
            return {}
        return self._renamed(call, WORKFLOW_CALL_PARTS, _CALL_KEYS)

    def _renamed(self, node: Mapping, definition: MappingValue, names: dict[str, str]) -> dict[str, Any]:
        return {names[key]: token for key, token in self._tokens(node, definition, names).items()}

    def _texts(self, node: Node | None) -> Iterator[Any]:
        items = node.items if isinstance(node, Sequence) else (node,)
        for item in items:
            if isinstance(item, Scalar):
                yield self._writer.token(item, WORKFLOW_ROOT.properties["name"])

    def _condition(self, node: Node | None, allowed: Allowed) -> dict[str, Any]:
        if not isinstance(node, Scalar):
            return self._writer.expression(IMPLIED)
        written = read_condition(node, allowed, Findings()).expression
        return self._writer.expression(written, node.position)

    def _steps(self, node: Node | None) -> list[dict[str, Any]]:
        items = (
            [item for item in node.items if isinstance(item, Mapping)] if isinstance(node, Sequence) else []
        )
        return [self._step(item, id_) for item, id_ in zip(items, step_ids(node), strict=True)]

    def _step(self, node: Mapping, id_: str) -> dict[str, Any]:
        tokens = self._tokens(node, STEP_KEYS, _STEP_TOKENS)
        kind = next((key for key in _NAMES if node.get(key) is not None), None)
        if kind is None:
            condition = self._condition(node.get("if"), STEP_CONDITION)
            background = self._tokens(node, STEP_KEYS, ("background",))
            return {"id": id_, "if": condition, **tokens, **background}
        return {"id": id_, "name": _NAMES[kind], **tokens, kind: self._waiting(kind, node.get(kind))}

    def _waiting(self, kind: str, value: Node | None) -> Any:
        if kind == "parallel":
            return self._steps(value)
        if kind == "wait-all":
            return True
        targets = list(self._texts(value))
        return targets if kind == "wait" else targets[0]
