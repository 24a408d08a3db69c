"""A tree and a scope to a value, as actions/runner evaluates: from the left, and no more than is needed."""

from __future__ import annotations

import math
from dataclasses import field
from itertools import islice
from typing import TYPE_CHECKING

from cloche.expressions.budget import ITEM, Budget
from cloche.expressions.errors import EvaluationError
from cloche.expressions.functions import BUILT_INS, Arguments, FunctionError
from cloche.expressions.syntax import Call, Comparison, Context, Index, Literal, Logical, Not, Wildcard
from cloche.expressions.values import (
    CaseSensitiveDict,
    Value,
    equals,
    is_array,
    is_object,
    is_primitive,
    order,
    to_number,
    to_string,
    truthy,
)
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloche.expressions.syntax import Node


@record
class Scope:
    """What an expression can see: contexts by name, and the functions that are not built in.

    A function gets its arguments evaluated. It may raise Pending, which evaluation lets pass.
    """

    contexts: Mapping[str, Value]
    functions: Mapping[str, Callable[[list[Value]], Value]] = field(default_factory=dict)


class FilteredArray(list[Value]):
    """What ``.*`` yields: indexing it indexes each item and drops those without such an entry."""


class Evaluator:
    """One evaluation; not to be used twice."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._budget = Budget()

    def evaluate(self, node: Node) -> Value:
        """Return the value of ``node``. Its recursion is bounded by the parser's depth limit.

        Raises EvaluationError, OutOfMemory, and whatever a function of the scope raises.
        """
        held = self._budget.held
        value = self._value(node)
        self._budget.settle(held, value)
        return value

    def _value(self, node: Node) -> Value:  # noqa: PLR0911 - one for each kind of node
        match node:
            case Literal():
                return node.value
            case Context():
                return next(self._entry(self._scope.contexts, node.name), None)
            case Index():
                return self._index(node)
            case Not():
                return not truthy(self.evaluate(node.operand))
            case Comparison():
                return _compare(node.operator, self.evaluate(node.left), self.evaluate(node.right))
            case Logical():
                return self._logical(node)
            case Call():
                return self._call(node)
            case Wildcard():
                return "*"

    def _logical(self, node: Logical) -> Value:
        value: Value = None
        for operand in node.operands:
            value = self.evaluate(operand)
            if truthy(value) is (node.operator == "||"):
                break
        return value

    def _index(self, node: Index) -> Value:
        target = self.evaluate(node.target)
        everything = isinstance(node.key, Wildcard)
        if is_primitive(target):
            return FilteredArray() if everything else None
        if isinstance(target, FilteredArray):
            return self._index_each(target, None if everything else node.key)
        if everything:
            return self._collect(_items(target))
        return next(self._pick(target, self.evaluate(node.key)), None)

    def _index_each(self, targets: FilteredArray, key_node: Node | None) -> FilteredArray:
        """Index every item of ``targets`` by one key, or take all in it where there is no key."""
        self._budget.handle(ITEM * len(targets))
        if key_node is None:
            return self._collect(item for target in targets for item in _items(target))
        key = self.evaluate(key_node)
        return self._collect(item for target in targets for item in self._pick(target, key))

    def _collect(self, items: Iterable[Value]) -> FilteredArray:
        meter = self._budget.meter()
        result = FilteredArray()
        for item in items:
            meter.add(ITEM)
            result.append(item)
        return result

    def _pick(self, target: Value, key: Value) -> Iterator[Value]:
        """Yield the entry of ``target`` at ``key``, if there is one."""
        if is_object(target):
            if is_primitive(key):
                yield from self._entry(target, to_string(key))
        elif is_array(target):
            index = to_number(key)
            if 0 <= index < len(target):
                yield target[math.floor(index)]

    def _entry(self, entries: Mapping[str, Value], name: str) -> Iterator[Value]:
        """Yield the entry called ``name``, if there is one. Case counts in a CaseSensitiveDict only."""
        if name in entries:
            yield entries[name]
        elif not isinstance(entries, CaseSensitiveDict):
            self._budget.handle(ITEM * len(entries))
            yield from islice((item for other, item in entries.items() if equals(other, name)), 1)

    def _call(self, node: Call) -> Value:
        built_in = BUILT_INS.get(node.name.lower())
        if built_in is None:
            return self._call_extension(node)
        try:
            return built_in(Arguments(node.arguments, self.evaluate, self._budget))
        except FunctionError as error:
            raise EvaluationError(str(error), offset=node.offset) from error

    def _call_extension(self, node: Call) -> Value:
        functions = self._scope.functions
        name = next((name for name in functions if name.lower() == node.name.lower()), None)
        if name is None:
            raise EvaluationError(f"The function '{node.name}' is not available here", offset=node.offset)
        return functions[name]([self.evaluate(argument) for argument in node.arguments])


def _items(value: Value) -> Iterable[Value]:
    """Return what is in a collection; nothing is in a primitive value."""
    if is_object(value):
        return value.values()
    return value if is_array(value) else ()


def _compare(operator: str, left: Value, right: Value) -> bool:
    if operator in {"==", "!="}:
        return equals(left, right) is (operator == "==")
    outcome = order(left, right)
    return outcome is not None and outcome in _OUTCOMES[operator]


_OUTCOMES = {"<": {-1}, "<=": {-1, 0}, ">": {1}, ">=": {0, 1}}
