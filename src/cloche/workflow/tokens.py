"""Checked nodes as the template tokens that GitHub's parsers write into JSON.

Source: actions/runner, ``WorkflowParser/ObjectTemplating/Tokens``: a literal is itself, everything else an
object with a ``type`` (1 sequence, 2 mapping, 3 expression, 4 insert). With source, literals are objects too
(0 string, 5 boolean, 6 number, 7 null), and each has the number of its file, line and column.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cloche.expressions import parse_template
from cloche.workflow.nodes import Scalar, Sequence
from cloche.workflow.schema import (
    Anything,
    BooleanValue,
    Definition,
    MappingValue,
    NullValue,
    NumberValue,
    SequenceValue,
    StringValue,
    options,
)
from cloche.workflow.templates import OPEN, is_insert, plain_text

if TYPE_CHECKING:
    from cloche.errors import Position
    from cloche.workflow.nodes import Node, ScalarValue

_ANYTHING = Anything()
_KINDS = {str: StringValue, bool: BooleanValue, float: NumberValue, type(None): NullValue}
_TYPES = {str: (0, "lit"), bool: (5, "bool"), float: (6, "num"), type(None): (7, "")}
_MOST_EXACT = 2.0**53


class TokenWriter:
    """Writes tokens; ``files`` are the files in the order they were met, which source positions count from 1."""

    def __init__(self, *, include_source: bool) -> None:
        self.include_source = include_source
        self.files: list[str] = []

    def token(self, node: Node, definition: Definition) -> Any:
        """Return the token of ``node``; a literal becomes text where ``definition`` knows nothing but text."""
        if isinstance(node, Scalar):
            return self._scalar(node, definition)
        if isinstance(node, Sequence):
            return self._sequence(node, definition)
        entries = [self._entry(key, value, definition) for key, value in node]
        return {"type": 2, **self._source(node.position), "map": entries}

    def expression(self, text: str, position: Position | None = None) -> dict[str, Any]:
        """Return the token of an expression that stands at ``position``, or was implied."""
        return {"type": 3, **self._source(position), "expr": text}

    def text(self, text: str, position: Position) -> Any:
        """Return the token of a literal string."""
        return self._literal(text, position)

    def file(self, name: str) -> int:
        """Return the number of a file, which is a new one if the file is."""
        if name not in self.files:
            self.files.append(name)
        return self.files.index(name) + 1

    def _source(self, position: Position | None) -> dict[str, int]:
        if position is None or not self.include_source:
            return {}
        return {"file": self.file(position.file), "line": position.line, "col": position.column}

    def _literal(self, value: ScalarValue, position: Position) -> Any:
        shown = _json_number(value) if isinstance(value, float) else value
        if not self.include_source:
            return shown
        number, name = _TYPES[type(value)]
        token = {"type": number, **self._source(position)}
        return {**token, name: shown} if name else token

    def _scalar(self, node: Scalar, definition: Definition) -> Any:
        if isinstance(node.value, str) and OPEN in node.value:
            if is_insert(node):
                return {"type": 4, **self._source(node.position), "directive": "insert"}
            template = parse_template(node.value)
            if template.expression is not None:
                return self.expression(template.expression.text, node.position)
            return self._literal(template.literal, node.position)
        kind = _KINDS[type(node.value)]
        known = any(isinstance(option, kind) for option in options(definition))
        return self._literal(node.value if known else plain_text(node), node.position)

    def _sequence(self, node: Sequence, definition: Definition) -> dict[str, Any]:
        found = next((one for one in options(definition) if isinstance(one, SequenceValue)), None)
        item = found.item_definition() if found else _ANYTHING
        items = [self.token(one, item) for one in node.items]
        return {"type": 1, **self._source(node.position), "seq": items}

    def _entry(self, key: Scalar, value: Node, definition: Definition) -> dict[str, Any]:
        candidates = [one for one in options(definition) if isinstance(one, MappingValue)]
        text = plain_text(key)
        known = next((one.properties[text] for one in candidates if text in one.properties), None)
        loose = next((one.loose_value for one in candidates if one.loose_value), None)
        return {"Key": self._scalar(key, _TEXT), "Value": self.token(value, known or loose or _ANYTHING)}


_TEXT = StringValue()


def _json_number(value: float) -> float | str:
    """Return a number as JSON has it: whole ones without a point, names for what JSON lacks."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return int(value) if value.is_integer() and abs(value) < _MOST_EXACT else value
