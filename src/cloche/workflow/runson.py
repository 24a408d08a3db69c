"""Which labels a job asks its machine to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloche.errors import ClocheError
from cloche.expressions.values import to_string


class RunsOnError(ClocheError):
    """An evaluated ``runs-on`` names no label, or a runner group."""


def labels(value: object) -> tuple[str, ...]:
    """Return the labels of an evaluated ``runs-on``: a string, a list, or a mapping with ``labels``.

    Raises RunsOnError.
    """
    if isinstance(value, Mapping):
        if value.get("group"):
            hint = "name the labels of one of your images instead"
            raise RunsOnError("`runs-on.group` is not carried out by Cloche yet", hint=hint)
        value = value.get("labels")
    items = [value] if isinstance(value, str | float) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str | float) for item in items):
        raise RunsOnError("`runs-on` is neither a label nor a list of labels")
    found = tuple(text for text in (to_string(item) for item in items) if text)
    if not found:
        raise RunsOnError("`runs-on` names no label", hint="an expression in it may have come out empty")
    return found
