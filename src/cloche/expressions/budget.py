"""How much one evaluation may hold and handle: no expression may fill the memory or block the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.expressions.values import is_primitive

if TYPE_CHECKING:
    from cloche.expressions.values import Value

MAX_MEMORY = 10 * 1024 * 1024
"""Bytes the values of one evaluation may take at a time, and any value being built; GitHub's limit."""
MAX_WORK = 128 * 1024 * 1024
"""Bytes one evaluation may handle in all. GitHub has no such limit; no honest expression comes near."""

ITEM = 24
"""Bytes a value that is no string counts for, as in actions/runner."""
_TEXT = 26
_CHARACTER = 2


class OutOfMemory(Exception):  # noqa: N818 - named for what happened; the evaluator words the error
    """Raised when an evaluation passes MAX_MEMORY or MAX_WORK."""


def size(text: str) -> int:
    """Return what ``text`` counts for, in bytes."""
    return _TEXT + _CHARACTER * len(text)


class Budget:
    """The accounts of one evaluation."""

    def __init__(self) -> None:
        self._held = 0
        self._handled = 0

    @property
    def held(self) -> int:
        """Bytes the values at hand take."""
        return self._held

    def settle(self, held_before: int, value: Value) -> None:
        """Count ``value``, the result of a node; a primitive one makes what led to it free again."""
        if is_primitive(value):
            self._held = held_before
        cost = size(value) if isinstance(value, str) else ITEM
        self._held += cost
        self.handle(cost)
        _check(self._held, MAX_MEMORY)

    def handle(self, cost: int) -> None:
        """Count ``cost`` bytes that are only looked at."""
        self._handled += cost
        _check(self._handled, MAX_WORK)

    def meter(self) -> Meter:
        """Return an account for a value that is being built."""
        return Meter(self)


class Meter:
    """The account of one value that is being built."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._built = 0

    def add(self, cost: int) -> None:
        """Count ``cost`` bytes more."""
        self._built += cost
        _check(self._built, MAX_MEMORY)
        self._budget.handle(cost)


def _check(amount: int, limit: int) -> None:
    if amount > limit:
        raise OutOfMemory
