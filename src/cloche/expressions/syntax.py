"""The tree of an expression. Every node knows its ``offset`` in the text the user wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator


@record
class Literal:
    """``null``, ``true``, ``1.5``, ``'text'``; also the name in ``github.sha``."""

    offset: int
    value: bool | float | str | None


@record
class Wildcard:
    """``*`` as the key of an :class:`Index`: every item."""

    offset: int


@record
class Context:
    """A named value: ``github``. ``name`` is as typed."""

    offset: int
    name: str


@record
class Index:
    """``target.name``, ``target[key]``, ``target.*``."""

    offset: int
    target: Node
    key: Node


@record
class Not:
    """``!operand``."""

    offset: int
    operand: Node


@record
class Comparison:
    """``left operator right`` for ``== != < <= > >=``."""

    offset: int
    operator: str
    left: Node
    right: Node


@record
class Logical:
    """A whole chain ``a && b && c`` (or ``||``); it adds one level of depth however long it is."""

    offset: int
    operator: str
    operands: tuple[Node, ...]


@record
class Call:
    """``name(arguments)``. ``name`` is as typed."""

    offset: int
    name: str
    arguments: tuple[Node, ...]


Node = Literal | Wildcard | Context | Index | Not | Comparison | Logical | Call


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes right below ``node``, in the order of the text."""
    match node:
        case Index():
            return (node.target, node.key)
        case Not():
            return (node.operand,)
        case Comparison():
            return (node.left, node.right)
        case Logical():
            return node.operands
        case Call():
            return node.arguments
        case _:
            return ()


def walk(root: Node | None) -> Iterator[Node]:
    """Yield every node of the tree, parents first."""
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(children(node)))


def is_deeper_than(limit: int, root: Node) -> bool:
    """Whether the tree has more than ``limit`` levels; looks no further than that."""
    level: tuple[Node, ...] = (root,)
    for _ in range(limit):
        level = tuple(child for node in level for child in children(node))
        if not level:
            return False
    return True
