"""Records: dataclasses whose methods are written here once, instead of being generated for each class.

``dataclasses.dataclass`` writes, compiles and runs the source of up to six methods a class, some 0.45 ms; a run
imports about 120 classes of this kind, and that was a third of what it cost to start. A record is a real
dataclass (``fields``, ``replace``, ``asdict`` and ``match`` take it) at 0.03 ms; making an instance costs a
microsecond more.
"""

from __future__ import annotations

import dataclasses
import reprlib
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_UNSET = dataclasses.MISSING
_set = object.__setattr__


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(
    *, frozen: bool = True, kw_only: bool = False, eq: bool = True
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(
    cls: type[T] | None = None, /, *, frozen: bool = True, kw_only: bool = False, eq: bool = True
) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a slotted dataclass, immutable unless ``frozen`` is false.

    Of ``dataclasses.field`` it knows ``default``, ``default_factory`` and ``metadata``; there is no
    ``__post_init__``.
    """

    def decorate(cls: type[T]) -> type[T]:
        return _make(cls, frozen=frozen, kw_only=kw_only, eq=eq)

    return decorate if cls is None else decorate(cls)


def _make(cls: type[T], *, frozen: bool, kw_only: bool, eq: bool) -> type[T]:
    cls.__doc__ = cls.__doc__ or cls.__name__  # where there is none, dataclass would spell out a signature
    make = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)
    kind: Any = make(cls)
    kind.__record_fields__ = {field.name: field for field in dataclasses.fields(kind)}
    kind.__init__, kind.__getstate__, kind.__setstate__ = _init, _values, _setstate
    if "__repr__" not in cls.__dict__:
        kind.__repr__ = _repr
    if eq and "__eq__" not in cls.__dict__:
        kind.__eq__, kind.__hash__ = _eq, _hash if frozen else None
    if frozen:
        kind.__setattr__, kind.__delattr__ = _refuse_to_set, _refuse_to_delete
    made: type[T] = kind
    return made


def _init(self: Any, /, *values: object, **named: object) -> None:
    fields = self.__record_fields__
    if named or not len(values) == len(fields) == len(self.__match_args__):
        values = _arranged(type(self), values, named)
    for name, value in zip(fields, values, strict=True):
        _set(self, name, value)


def _arranged(kind: Any, values: tuple[object, ...], named: Mapping[str, object]) -> tuple[object, ...]:
    """Return a value for each field in order. TypeError as calling a function with these arguments."""
    positional = kind.__match_args__
    if len(values) > len(positional):
        raise TypeError(
            f"{kind.__name__} takes {len(positional)} positional arguments but {len(values)} were given"
        )
    given = dict(zip(positional, values, strict=False))
    if twice := given.keys() & named:
        raise TypeError(f"{kind.__name__} got multiple values for {', '.join(sorted(twice))}")
    given |= named
    if unknown := given.keys() - kind.__record_fields__:
        raise TypeError(f"{kind.__name__} got an unexpected argument {', '.join(sorted(unknown))}")
    return tuple(
        given[name] if name in given else _default(kind, field)
        for name, field in kind.__record_fields__.items()
    )


def _default(kind: Any, field: dataclasses.Field[object]) -> object:
    if field.default_factory is not _UNSET:
        return field.default_factory()
    if field.default is not _UNSET:
        return field.default
    raise TypeError(f"{kind.__name__} is missing the argument {field.name}")


def _values(self: Any) -> tuple[object, ...]:
    return tuple([getattr(self, name) for name in self.__record_fields__])


@reprlib.recursive_repr("...")
def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name in self.__record_fields__)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: object, other: object) -> bool:
    if type(self) is not type(other):
        return NotImplemented  # type: ignore[no-any-return] # what Python asks of a method for ==
    same: bool = _values(self) == _values(other)
    return same


def _hash(self: object) -> int:
    return hash(_values(self))


def _refuse_to_set(self: object, name: str, value: object) -> None:  # noqa: ARG001 - Python's signature
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:  # noqa: ARG001 - Python's signature
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _setstate(self: Any, state: tuple[object, ...]) -> None:
    for name, value in zip(self.__record_fields__, state, strict=True):
        _set(self, name, value)
