"""A job's matrix: from evaluated vectors, ``include`` and ``exclude`` to its legs.

Rules: docs.github.com, "Running variations of jobs in a workflow", and where that is silent actions/runner
(``WorkflowParser/Conversion/MatrixBuilder``): filters compare as the expression language does (``'3'`` equals
``3``), a filter's nested values are compared one by one, and what ``include`` adds to a leg of the cross
product neither overwrites the leg's own values nor shows in its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from cloche.errors import ClocheError
from cloche.expressions.values import Value, fold, to_string
from cloche.records import record
from cloche.workflow.product import Filter, Product, TooComplexError, Vectors, fits

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LEGS = 256
"""GitHub's limit of legs of one job."""

NO_VECTOR = "Matrix must define at least one vector"

_MAX_COMPARISONS = 200_000
_MAX_NAME = 100


@record
class Problem:
    """One thing wrong with a matrix. ``path`` leads to it: ``("exclude", 0, "os")``; empty is the whole.

    ``at_key`` tells that the last step's key is meant, not its value.
    """

    message: str
    path: tuple[str | int, ...] = ()
    at_key: bool = False


class MatrixError(ClocheError):
    """The matrix has the wrong shape, contradicts itself or has more than ``MAX_LEGS`` legs.

    ``problems`` holds everything found; ``message`` is the first.
    """

    def __init__(self, problems: tuple[Problem, ...], *, hint: str | None = None) -> None:
        super().__init__(problems[0].message, hint=hint)
        self.problems = problems


class TooManyLegsError(MatrixError):
    """The matrix has more than ``MAX_LEGS`` legs."""


class Leg(dict[str, Value]):
    """One combination: the ``matrix`` context. ``name`` is how GitHub shows it: ``3.11, ubuntu-latest``."""

    __slots__ = ("name",)

    def __init__(self, values: Mapping[str, Value], name: str) -> None:
        super().__init__(values)
        self.name = name


@record(frozen=False)
class _Include:
    """One item of ``include``: what must be equal, what it adds, and whether any leg took it."""

    item: Mapping[str, Value]
    wanted: dict[str, Value]
    extra: dict[str, Value]
    used: bool = False


def expand(matrix: Mapping[str, object], *, job: str = "") -> list[Leg]:
    """Return the legs in GitHub's order: the cross product, then the items of ``include`` that no leg took.

    ``matrix`` is evaluated, plain data; ``job`` names the job in messages. The list is empty when ``exclude``
    leaves nothing. Raises MatrixError; a matrix that is too big is refused before it is built.
    """
    reader = _Reader()
    vectors = reader.vectors(matrix)
    include = reader.include(matrix.get("include", ()), vectors)
    exclude = reader.exclude(matrix.get("exclude", ()), vectors)
    reader.check()
    if not vectors and not include:
        raise MatrixError((Problem(NO_VECTOR),))
    legs = _cross_product(vectors, exclude, job)
    if len(legs) * len(include) > _MAX_COMPARISONS:
        raise _too_complex(f"{len(legs)} combinations and {len(include)} items of `include`")
    for leg in legs:
        _extend(leg, include)
    alone = [Leg(part.item, _name(part.item)) for part in include if not part.used]
    if len(legs) + len(alone) > MAX_LEGS:
        raise _too_many(job, len(legs) + len(alone))
    return legs + alone


def _cross_product(vectors: Vectors, exclude: Sequence[Filter], job: str) -> list[Leg]:
    if not vectors:
        return []
    try:
        product = Product(vectors, exclude)
    except TooComplexError as error:
        raise _too_complex(str(error)) from error
    if product.size > MAX_LEGS:
        raise _too_many(job, product.size)
    return [Leg(values, _name(values)) for values in product.combinations()]


def _too_complex(what: str) -> MatrixError:
    hint = "make the matrix in a job of its own and read it with fromJSON()"
    return MatrixError((Problem(f"The matrix is too complex for Cloche: it has {what}"),), hint=hint)


def leg_name(leg: Mapping[str, object]) -> str:
    """Return how GitHub shows the leg in a job's name: ``3.11, ubuntu-latest``.

    Nested values show one by one; null, the empty string and what ``include`` added do not show.
    """
    return leg.name if isinstance(leg, Leg) else _name(cast("Mapping[str, Value]", leg))


def display_name(job_name: str, leg: Mapping[str, object]) -> str:
    """Return a leg's job name: ``build (3.11, ubuntu-latest)``, at most 100 characters as on GitHub."""
    shown = leg_name(leg)
    name = f"{job_name} ({shown})" if shown else job_name
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


def _too_many(job: str, legs: int) -> TooManyLegsError:
    strategy = f"Strategy for job '{job}'" if job else "The strategy"
    message = (
        f"{strategy} produced {legs} configurations which exceeds the maximum of {MAX_LEGS} configurations"
    )
    return TooManyLegsError(
        (Problem(message),), hint="make the vectors shorter, or spread them over several jobs"
    )


class _Reader:
    """Takes a matrix apart, noting what is wrong in GitHub's words."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def vectors(self, matrix: Mapping[str, object]) -> dict[str, Sequence[Value]]:
        self._refuse_double_keys(matrix, ())
        vectors = {}
        for key, value in matrix.items():
            if key in {"include", "exclude"}:
                continue
            vectors[key] = self._sequence(value, (key,))
            if isinstance(value, Sequence) and not value:
                self._note(empty_vector(key), (key,))
        return vectors

    def include(self, value: object, vectors: Mapping[str, object]) -> list[_Include]:
        known = {fold(key) for key in vectors}
        parts = []
        items = self._mappings(value, "include", "Matrix include mapping does not contain any values")
        for item in items.values():
            wanted = {key: value for key, value in item.items() if fold(key) in known}
            extra = {key: value for key, value in item.items() if fold(key) not in known}
            parts.append(_Include({**wanted, **extra}, wanted, extra))
        return parts

    def exclude(self, value: object, vectors: Mapping[str, object]) -> list[Mapping[str, Value]]:
        known = {fold(key) for key in vectors}
        filters = self._mappings(value, "exclude", "Matrix exclude filter must not be empty")
        for index, filter_ in filters.items():
            for key in filter_:
                if fold(key) not in known:
                    message = f"Matrix exclude key '{key}' does not match any key within the matrix"
                    self._note(message, ("exclude", index, key), at_key=True)
        return list(filters.values())

    def check(self) -> None:
        if self.problems:
            raise MatrixError(tuple(self.problems))

    def _note(self, message: str, path: tuple[str | int, ...], *, at_key: bool = False) -> None:
        self.problems.append(Problem(message, path, at_key))

    def _sequence(self, value: object, path: tuple[str | int, ...]) -> Sequence[Value]:
        if isinstance(value, Mapping):
            self._note("A mapping was not expected", path)
        elif isinstance(value, str) or not isinstance(value, Sequence):
            self._note(f"Unexpected value '{_shown(value)}'", path)
        else:
            return value
        return ()

    def _mappings(self, value: object, key: str, if_empty: str) -> dict[int, Mapping[str, Value]]:
        """Return the items that are mappings, by their place in the list."""
        items: dict[int, Mapping[str, Value]] = {}
        for index, item in enumerate(self._sequence(value, (key,))):
            if isinstance(item, Mapping):
                if not item:
                    self._note(if_empty, (key, index))
                self._refuse_double_keys(item, (key, index))
                items[index] = item
            elif isinstance(item, Sequence) and not isinstance(item, str):
                self._note("A sequence was not expected", (key, index))
            else:
                self._note(f"Unexpected value '{_shown(item)}'", (key, index))
        return items

    def _refuse_double_keys(self, mapping: Mapping[str, object], path: tuple[str | int, ...]) -> None:
        seen: set[str] = set()
        for key in mapping:
            if fold(key) in seen:
                self._note(f"'{key}' is already defined", (*path, key), at_key=True)
            seen.add(fold(key))


def empty_vector(key: str) -> str:
    """Return GitHub's words for a vector without values."""
    return f"Matrix vector '{key}' does not contain any values"


def _shown(value: object) -> str:
    return to_string(cast("Value", value))[:_MAX_NAME]


def _extend(leg: Leg, include: Sequence[_Include]) -> None:
    """Add what the items of ``include`` that fit the leg have to add; later items win."""
    values = dict(leg)
    for part in include:
        if fits(part.wanted, values):
            part.used = True
            leg.update(part.extra)


def _name(values: Value) -> str:
    return ", ".join(text for text in map(to_string, _leaves(values)) if text)


def _leaves(value: Value) -> Iterator[Value]:
    if isinstance(value, Mapping):
        for member in value.values():
            yield from _leaves(member)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
