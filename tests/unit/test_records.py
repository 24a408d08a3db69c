"""Records behave as the dataclasses they stand for, and cost a fraction to define."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.records import record


@record
class Point:
    """Two fields and a default."""

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)


@record(kw_only=True)
class Named:
    """Keywords only."""

    name: str


@record(kw_only=True)
class Longer(Named):
    """One field more."""

    size: int = 1


@record(frozen=False)
class Counter:
    """May be changed."""

    count: int = 0


@record(frozen=False, eq=False)
class Unique:
    """Equal to itself alone."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """What Point would be without us."""

    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)


_ARGUMENTS = st.tuples(
    st.lists(st.integers(0, 3), max_size=4),
    st.dictionaries(st.sampled_from(["x", "y", "tags", "z"]), st.integers(0, 3)),
)


def _made(kind: Any, values: list[int], named: dict[str, int]) -> object:
    try:
        return dataclasses.asdict(kind(*values, **named))
    except TypeError:
        return TypeError


@given(_ARGUMENTS)
def test_arguments_are_taken_and_refused_as_by_a_dataclass(
    arguments: tuple[list[int], dict[str, int]],
) -> None:
    assert _made(Point, *arguments) == _made(Model, *arguments)


def test_a_refusal_names_the_class_and_the_field() -> None:
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((), {}, "Point is missing the argument x"),
        ((1,), {"x": 1}, "Point got multiple values for x"),
        ((1,), {"z": 1}, "Point got an unexpected argument z"),
        ((1, 2, [], 4), {}, "Point takes 3 positional arguments but 4 were given"),
    ]
    for arguments, named, said in cases:
        with pytest.raises(TypeError, match=f"^{said}$"):
            Point(*arguments, **named)


def test_a_default_is_made_for_each() -> None:
    assert Point(1).tags is not Point(1).tags


def test_equal_values_of_one_class_are_equal_and_hash_alike() -> None:
    assert Longer(name="a") == Longer(name="a", size=1)
    assert Longer(name="a") != Longer(name="b")
    assert Longer(name="a") != Named(name="a")
    assert hash(Longer(name="a")) == hash(Longer(name="a", size=1))


def test_what_may_change_has_no_hash_unless_it_is_equal_to_itself_alone() -> None:
    assert Counter() == Counter(0)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Counter())
    assert Unique() != Unique()
    assert len({Unique(), Unique()}) == 2


def test_a_frozen_one_refuses_changes_and_another_takes_them() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2  # type: ignore[misc] # wrong on purpose
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    counter = Counter()
    counter.count += 1
    assert counter == Counter(1)


def test_there_is_room_for_the_fields_only() -> None:
    with pytest.raises(AttributeError):
        Counter().other = 1  # type: ignore[attr-defined] # wrong on purpose


def test_it_shows_its_fields_and_itself_within_itself_once() -> None:
    assert repr(Longer(name="a")) == "Longer(name='a', size=1)"
    point = Point(1)
    point.tags.append(point)  # type: ignore[arg-type] # wrong on purpose
    assert repr(point) == "Point(x=1, y=0, tags=[...])"


def test_keywords_only_are_keywords_only() -> None:
    with pytest.raises(TypeError, match="takes 0 positional arguments"):
        Named("a")  # type: ignore[call-arg] # wrong on purpose


def test_the_tools_for_dataclasses_take_it() -> None:
    point = Point(1, 2)
    assert [one.name for one in dataclasses.fields(point)] == ["x", "y", "tags"]
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "tags": []}
    assert dataclasses.replace(point, y=3) == Point(1, 3)
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


@pytest.mark.parametrize("one", [Longer(name="a", size=2), Counter(3)])
def test_it_is_copied_and_pickled(one: object) -> None:
    assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own


def test_own_methods_stay() -> None:
    @record
    class Own:
        text: str

        def __repr__(self) -> str:
            return self.text

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __hash__(self) -> int:
            return 7

    assert (repr(Own("a")), Own("a") == Own("b"), hash(Own("a"))) == ("a", True, 7)
