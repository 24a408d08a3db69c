"""Which labels a job asks its machine to have, and what they say of its size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cloche.errors import ClocheError
from cloche.expressions.values import to_string
from cloche.records import record
from cloche.workflow import nodes

if TYPE_CHECKING:
    from cloche.errors import Position

_PART = r"-([1-9][0-9]{0,5})(cpu|gb)"
_SIZE = re.compile(rf"cloche(?:{_PART})(?:{_PART})?", re.IGNORECASE | re.ASCII)
_GIB = 1024**3


@record
class Size:
    """What a label asks of the VM; ``None`` where it says nothing. ``memory`` is bytes."""

    cpus: int | None = None
    memory: int | None = None


class RunsOnError(ClocheError):
    """An evaluated ``runs-on`` names no label, or a runner group."""


def labels(value: object) -> tuple[str, ...]:
    """Return the labels of an evaluated ``runs-on``: a string, a list, or a mapping with ``labels``.

    Raises RunsOnError.
    """
    if isinstance(value, Mapping):
        if value.get("group"):
            hint = "name the labels of one of your images instead"
            raise RunsOnError("`runs-on.group` is not carried out by Cloche yet", hint=hint)
        value = value.get("labels")
    items = [value] if isinstance(value, str | float) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str | float) for item in items):
        raise RunsOnError("`runs-on` is neither a label nor a list of labels")
    found = tuple(text for text in (to_string(item) for item in items) if text)
    if not found:
        raise RunsOnError("`runs-on` names no label", hint="an expression in it may have come out empty")
    return found


def position_of(node: nodes.Node, label: str) -> Position:
    """Return where a ``runs-on`` writes a label, as nearly as it can be told."""
    if isinstance(node, nodes.Mapping):
        node = node.get("labels") or node
    items = node.items if isinstance(node, nodes.Sequence) else ()
    found = (item.position for item in items if isinstance(item, nodes.Scalar) and item.text == label)
    return next(found, node.position)


def size_of(label: str) -> Size | None:
    """Return what a label such as ``cloche-4cpu-8gb`` asks for, ``None`` for a label of another kind.

    Gigabytes are powers of 1024 here, as sizes are everywhere in Cloche.
    """
    found = _SIZE.fullmatch(label)
    if not found or found[2].lower() == (found[4] or "").lower():
        return None
    asked = {unit.lower(): int(number) for number, unit in (found.groups()[:2], found.groups()[2:]) if unit}
    return Size(asked.get("cpu"), asked["gb"] * _GIB if "gb" in asked else None)
