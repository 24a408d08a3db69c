"""The functions that every expression may call.

Arguments are evaluated only when a function asks for them, as in actions/runner: ``format('{0}', a, b)``
never looks at ``b``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cloche.expressions.budget import ITEM, size
from cloche.expressions.names import MAX_ARGUMENTS
from cloche.expressions.values import equals, fold, is_array, is_primitive, kind, to_string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloche.expressions.budget import Budget
    from cloche.expressions.syntax import Node
    from cloche.expressions.values import Value


class FunctionError(Exception):
    """Raised by a function that cannot work on its arguments; the evaluator adds the place."""


class Arguments:
    """The arguments of one call, each evaluated when it is asked for."""

    def __init__(self, nodes: Sequence[Node], evaluate: Callable[[Node], Value], budget: Budget) -> None:
        self._nodes = nodes
        self._evaluate = evaluate
        self.budget = budget

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, index: int) -> Value:
        return self._evaluate(self._nodes[index])

    def text(self, index: int) -> str:
        """Return an argument as a string."""
        return to_string(self[index])


def _case(arguments: Arguments) -> Value:
    for index in range(0, len(arguments) - 1, 2):
        predicate = arguments[index]
        if not isinstance(predicate, bool):
            raise FunctionError("case predicate must evaluate to a boolean value")
        if predicate:
            return arguments[index + 1]
    return arguments[len(arguments) - 1]


def _contains(arguments: Arguments) -> Value:
    where = arguments[0]
    if is_primitive(where):
        what = arguments[1]
        return is_primitive(what) and fold(to_string(what)) in fold(to_string(where))
    if not is_array(where) or not where:
        return False
    what = arguments[1]
    return any(_is_equal(what, item, arguments.budget) for item in where)


def _is_equal(what: Value, item: Value, budget: Budget) -> bool:
    cost = size(item) if isinstance(item, str) else ITEM
    if isinstance(what, str) and not isinstance(item, str):
        cost += size(what)  # it is read as a number, each time
    budget.handle(cost)
    return equals(what, item)


def _affix(test: Callable[[str, str], bool]) -> Callable[[Arguments], Value]:
    def call(arguments: Arguments) -> Value:
        where = arguments[0]
        if not is_primitive(where):
            return False
        what = arguments[1]
        return is_primitive(what) and test(fold(to_string(where)), fold(to_string(what)))

    return call


class _Place(NamedTuple):
    """``{argument:specifiers}`` in a format string."""

    argument: int
    specifiers: str


_FORMAT_PIECE = re.compile(
    r"""(?P<text>[^{}]++)
    |(?P<brace>\{\{|\}\})
    |\{(?P<index>[0-9]++)(?::(?P<specifiers>(?:\}\}|[^}])*))?\}""",
    re.VERBOSE,
)
_MOST_DIGITS = len(str(MAX_ARGUMENTS))
_LONGEST_SHOWN = 1000


def _format(arguments: Arguments) -> Value:
    meter = arguments.budget.meter()
    pieces = []
    for piece in _format_pieces(arguments.text(0), len(arguments) - 1):
        meter.add(size(piece) if isinstance(piece, str) else ITEM)
        pieces.append(piece)
    known: dict[int, str] = {}
    texts = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
        else:
            texts.append(_placed(piece, arguments, known))
            meter.add(size(texts[-1]))
    return "".join(texts)


def _format_pieces(template: str, count: int) -> Iterator[str | _Place]:
    """Yield what ``template`` is made of; ``count`` arguments can be placed."""
    offset = 0
    while offset < len(template):
        match = _FORMAT_PIECE.match(template, offset)
        if match is None:
            raise FunctionError(f"The following format string is invalid: {_shown(template)}")
        offset = match.end()
        yield _place(match, template, count) if match["index"] else match["text"] or match["brace"][0]


def _place(match: re.Match[str], template: str, count: int) -> _Place:
    digits = match["index"].lstrip("0") or "0"
    if len(digits) > _MOST_DIGITS or int(digits) > MAX_ARGUMENTS:
        raise FunctionError(f"The following format string is invalid: {_shown(template)}")
    if int(digits) >= count:
        what = "The following format string references more arguments than were supplied"
        raise FunctionError(f"{what}: {_shown(template)}")
    return _Place(int(digits), match["specifiers"] or "")


def _placed(place: _Place, arguments: Arguments, known: dict[int, str]) -> str:
    """Return the text of an argument; each is evaluated once, and only after the format is found valid."""
    if place.specifiers:
        specifiers = _shown(place.specifiers.replace("}}", "}"))
        of = kind(arguments[place.argument + 1])
        raise FunctionError(f"The format specifiers '{specifiers}' are not valid for objects of type '{of}'")
    if place.argument not in known:
        known[place.argument] = arguments.text(place.argument + 1)
    return known[place.argument]


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _from_json(arguments: Arguments) -> Value:
    from cloche.expressions.json_text import JsonError, read_json  # most expressions do without

    try:
        return read_json(arguments.text(0))
    except JsonError as error:
        raise FunctionError(f"Error parsing fromJson: {error}") from error


def _to_json(arguments: Arguments) -> Value:
    from cloche.expressions.json_text import write_json  # most expressions do without

    return write_json(arguments[0], arguments.budget.meter())


def _join(arguments: Arguments) -> Value:
    items = arguments[0]
    if is_primitive(items):
        return to_string(items)
    if not is_array(items):
        return ""
    meter = arguments.budget.meter()
    separator = _separator(arguments) if len(items) > 1 else ""
    pieces = []
    for item in items:
        piece = to_string(item)
        meter.add(size(piece) + size(separator))
        pieces.append(piece)
    return separator.join(pieces)


def _separator(arguments: Arguments) -> str:
    separator = arguments[1] if len(arguments) > 1 else ","
    return to_string(separator) if is_primitive(separator) else ","


BUILT_INS: Mapping[str, Callable[[Arguments], Value]] = {
    "case": _case,
    "contains": _contains,
    "endswith": _affix(str.endswith),
    "format": _format,
    "fromjson": _from_json,
    "join": _join,
    "startswith": _affix(str.startswith),
    "tojson": _to_json,
}
"""By lower-case name; names.BUILT_IN says what each takes."""
