"""What a YAML file says, with positions: the tree every reader of workflow files works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.errors import Position

ScalarValue = str | float | bool | None


@record
class Scalar:
    """A leaf.

    ``value`` is what YAML 1.2's core schema makes of it (numbers are floats, as in GitHub's expression
    language); ``text`` is what the user typed, quotes and escapes resolved: a plain ``3.10`` has the value
    3.1 and the text ``3.10``. ``quoted`` is true for quoted and block scalars, which are always strings.
    """

    value: ScalarValue
    text: str
    position: Position
    quoted: bool = False


@record
class Sequence:
    """A YAML sequence."""

    items: tuple[Node, ...]
    position: Position


@record
class Mapping:
    """A YAML mapping in file order; keys are scalars, unique once the schema has passed."""

    entries: tuple[tuple[Scalar, Node], ...]
    position: Position

    def get(self, key: str) -> Node | None:
        """Return the value of ``key`` (as typed), or ``None``; of double keys the first counts."""
        return next((value for name, value in self.entries if name.text == key), None)

    def __iter__(self) -> Iterator[tuple[Scalar, Node]]:
        return iter(self.entries)


Node = Scalar | Sequence | Mapping
