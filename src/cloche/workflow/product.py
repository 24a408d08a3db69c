"""The cross product of vectors less what filters take away, counted before it is built.

A vector's value is known by the filters that still fit once it is chosen, one bit each; a combination is taken
away when a filter fits and no later vector can change that. Values that leave the same filters count as one, so
the size of a product of millions is known at once, and building it follows only the ways that lead somewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cloche.expressions.values import Value, equals, fold

Vectors = Mapping[str, Sequence[Value]]
Filter = Mapping[str, Value]

_MAX_COMPARISONS = 200_000
_MAX_STEPS = 200_000
_MAX_VECTORS = 256


class TooComplexError(ValueError):
    """Counting would take longer than a matrix is worth; the message says what there is too much of."""


class Product:
    """Vectors, at least one, and the filters that take combinations away.

    Raises TooComplexError; every filter has keys, and all of them are names of vectors, whatever their case.
    """

    def __init__(self, vectors: Vectors, filters: Sequence[Filter]) -> None:
        values = sum(len(vector) for vector in vectors.values())
        if len(vectors) > _MAX_VECTORS:
            raise TooComplexError(f"{len(vectors)} vectors")
        if values * len(filters) > _MAX_COMPARISONS:
            raise TooComplexError(f"{values} values and {len(filters)} filters")
        self._vectors = vectors
        self._all = (1 << len(filters)) - 1
        folded = [{fold(key): value for key, value in filter_.items()} for filter_ in filters]
        self._masks = [[_mask(folded, name, value) for value in vector] for name, vector in vectors.items()]
        self._decided = _decided(folded, [fold(name) for name in vectors])
        self._counts = self._count()

    @property
    def size(self) -> int:
        """How many combinations are left."""
        return self._counts[0][self._all]

    def combinations(self) -> list[dict[str, Value]]:
        """Return the combinations that are left, the last vector changing fastest."""
        partial: list[tuple[dict[str, Value], int]] = [({}, self._all)]
        for (name, vector), masks, after in zip(
            self._vectors.items(), self._masks, self._counts[1:], strict=True
        ):
            partial = [
                ({**values, name: value}, fitting & mask)
                for values, fitting in partial
                for value, mask in zip(vector, masks, strict=True)
                if after.get(fitting & mask)
            ]
        return [values for values, _ in partial]

    def _count(self) -> list[dict[int, int]]:
        """Return, before each vector and after the last, how many combinations follow each set of filters."""
        reached = self._reached()
        counts = [dict.fromkeys(reached[-1], 1)]
        for masks, states in zip(reversed(self._masks), reversed(reached[:-1]), strict=True):
            times, after = Counter(masks), counts[-1]
            counts.append(
                {
                    fitting: sum(number * after.get(fitting & mask, 0) for mask, number in times.items())
                    for fitting in states
                }
            )
        return counts[::-1]

    def _reached(self) -> list[set[int]]:
        """Return the sets of filters that can still fit, without those where one has fitted to its end."""
        reached = [{self._all}]
        steps = 0
        for masks, decided in zip(self._masks, self._decided, strict=True):
            distinct = set(masks)
            steps += len(reached[-1]) * len(distinct)
            if steps > _MAX_STEPS:
                raise TooComplexError("filters that have too little in common")
            fitting = {before & mask for before in reached[-1] for mask in distinct}
            reached.append({filters for filters in fitting if not filters & decided})
        return reached


def _decided(filters: Sequence[Filter], names: Sequence[str]) -> list[int]:
    """Return for each vector the filters that ask about it and about no vector after it."""
    last = [max(names.index(key) for key in filter_) for filter_ in filters]
    return [sum(1 << bit for bit, place in enumerate(last) if place == index) for index in range(len(names))]


def _mask(filters: Sequence[Filter], name: str, value: Value) -> int:
    """Return the filters that ``value`` of the vector ``name`` fits or that do not ask about it."""
    key = fold(name)
    return sum(
        1 << bit for bit, wanted in enumerate(filters) if key not in wanted or fits(wanted[key], value)
    )


def fits(wanted: Value, actual: Value) -> bool:
    """Return whether every leaf of ``wanted`` equals the value at the same place of ``actual``."""
    if isinstance(wanted, Mapping):
        return all(fits(value, _member(actual, key)) for key, value in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return all(fits(value, _item(actual, index)) for index, value in enumerate(wanted))
    return equals(actual, wanted)


def _member(value: Value, key: str) -> Value:
    if not isinstance(value, Mapping):
        return None
    folded = fold(key)
    return next((member for name, member in value.items() if fold(name) == folded), None)


def _item(value: Value, index: int) -> Value:
    if isinstance(value, str) or not isinstance(value, Sequence) or index >= len(value):
        return None
    return value[index]
