"""What a schema for YAML trees is made of. The schema of workflow files itself is in ``definitions``.

The model is GitHub's (actions/runner, ``WorkflowParser/ObjectTemplating/Schema``): a definition says what a
value may be and which contexts and functions an expression in it, or anywhere below it, may use.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, TypeVar

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@record
class Allowed:
    """The names an expression may use. None at all means that expressions are not allowed.

    ``functions`` are those that do not work everywhere, with their arity: ``hashFiles(1,255)``.
    """

    contexts: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()

    def __or__(self, other: Allowed) -> Allowed:
        return Allowed(self.contexts | other.contexts, self.functions | other.functions)

    def __bool__(self) -> bool:
        return bool(self.contexts or self.functions)


NOTHING = Allowed()


@record(kw_only=True)
class Definition:
    """Base of all definitions; ``allowed`` adds to what the definitions above allow."""

    allowed: Allowed = NOTHING


@record(kw_only=True)
class NullValue(Definition):
    """Nothing, ``null`` or ``~``."""


@record(kw_only=True)
class BooleanValue(Definition):
    """``true`` or ``false``, unquoted."""


@record(kw_only=True)
class NumberValue(Definition):
    """A number, unquoted."""


@record(kw_only=True)
class StringValue(Definition):
    """Any scalar, as text. ``constants`` lists the only allowed texts, if there are any."""

    non_empty: bool = False
    constants: tuple[str, ...] = ()

    def accepts(self, text: str) -> bool:
        """Return whether ``text`` is allowed here."""
        if self.constants:
            return text in self.constants
        return bool(text) or not self.non_empty


@record(kw_only=True)
class SequenceValue(Definition):
    """A sequence of ``item``; a function stands for a definition that contains itself."""

    item: Definition | Callable[[], Definition]

    def item_definition(self) -> Definition:
        """Return the definition of one item."""
        return self.item() if callable(self.item) else self.item


@record(kw_only=True)
class MappingValue(Definition):
    """A mapping with well-known keys, any other keys (``loose_key`` and ``loose_value``), or both."""

    properties: Mapping[str, Definition] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    loose_key: Definition | None = None
    loose_value: Definition | None = None


@record(kw_only=True)
class OneOf(Definition):
    """Any of several. The options of one of several options count as its own."""

    options: tuple[Definition, ...]


@record(kw_only=True)
class Anything(Definition):
    """Any value, however deep."""


ScalarDefinition = NullValue | BooleanValue | NumberValue | StringValue
Kind = TypeVar("Kind", bound=Definition)

_ANY_MAPPING = MappingValue(loose_key=StringValue(), loose_value=Anything())
_ANY = (
    NullValue(),
    BooleanValue(),
    NumberValue(),
    StringValue(),
    SequenceValue(item=Anything()),
    _ANY_MAPPING,
)


def options(definition: Definition) -> Iterator[Definition]:
    """Yield what ``definition`` may be, without OneOf and Anything."""
    if isinstance(definition, OneOf):
        for option in definition.options:
            yield from options(option)
    elif isinstance(definition, Anything):
        yield from _ANY
    else:
        yield definition


def with_allowed(definition: Kind, allowed: Allowed) -> Kind:
    """Return the same definition where expressions may use ``allowed``."""
    return replace(definition, allowed=allowed)
