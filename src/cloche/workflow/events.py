"""``on`` as data: what GitHub's TypeScript parser calls ``events``, and the types of dispatch inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloche.expressions import to_string
from cloche.workflow.definitions_on import FILTERS
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import plain_text, plain_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.workflow.nodes import Node

_MEMBERS = {
    "inputs": ("type", "description", "required", "options", "default"),
    "secrets": ("description", "required"),
}


def events_of(on: Node | None) -> dict[str, Any]:
    """Return each event of a checked ``on`` with its filters, schedules or inputs."""
    if isinstance(on, Mapping):
        return {key.text: _event(key.text, value) for key, value in on}
    return {text: {} for text in _texts(on)}


def input_types(on: Node | None) -> dict[str, str]:
    """Return the type of each input of ``workflow_dispatch``; ``string`` where none was written."""
    dispatch = on.get("workflow_dispatch") if isinstance(on, Mapping) else None
    inputs = dispatch.get("inputs") if isinstance(dispatch, Mapping) else None
    return {key.text: _type(value) for key, value in _entries(inputs)}


def _event(name: str, node: Node) -> Any:
    if name == "schedule":
        items = node.items if isinstance(node, Sequence) else ()
        return [{key.text: plain_value(value) for key, value in _entries(item)} for item in items]
    if name in {"workflow_call", "workflow_dispatch"}:
        parts = {key.text: value for key, value in _entries(node)}
        return {
            key: {name.text: _members(key, value) for name, value in _entries(parts[key])}
            for key in ("inputs", "secrets")
            if key in parts and (name == "workflow_call" or key == "inputs")
        }
    return {key.text: list(_texts(value)) for key, value in _entries(node) if key.text in FILTERS}


def _members(part: str, node: Node) -> dict[str, Any]:
    """Return an input or a secret as its parser has them: the former without defaults that are numbers."""
    members = {key.text: plain_value(value) for key, value in _entries(node) if key.text in _MEMBERS[part]}
    if "description" in members:
        members["description"] = to_string(members["description"])
    if not isinstance(members.get("default"), str | bool):
        members.pop("default", None)
    return {"type": "string", **members} if part == "inputs" else members


def _type(node: Node) -> str:
    written = node.get("type") if isinstance(node, Mapping) else None
    return plain_text(written) if isinstance(written, Scalar) else "string"


def _entries(node: Node | None) -> Iterator[tuple[Scalar, Node]]:
    return iter(node) if isinstance(node, Mapping) else iter(())


def _texts(node: Node | None) -> Iterator[str]:
    for item in node.items if isinstance(node, Sequence) else (node,):
        if isinstance(item, Scalar) and item.value is not None:
            yield plain_text(item)
