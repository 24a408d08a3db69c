"""Whether a text is a cron expression that GitHub takes.

Source: docs.github.com, "Events that trigger workflows", section ``schedule``: five POSIX fields, names of
months and days allowed, ``@daily`` and its kin not.
"""

from __future__ import annotations

from cloche.records import record

MESSAGE = "Invalid cron expression. Expected format: '* * * * *' (minute hour day month weekday)"


@record
class _Field:
    least: int
    most: int
    names: tuple[str, ...] = ()

    def value(self, text: str) -> int | None:
        if text.lower() in self.names:
            return self.least + self.names.index(text.lower())
        if not (text.isascii() and text.isdigit()) or len(text) > len("59"):
            return None
        return int(text) if self.least <= int(text) <= self.most else None

    def accepts(self, text: str) -> bool:
        """Return whether ``text`` is a list of values, ranges and steps of this field."""
        return all(self._accepts_one(part) for part in text.split(","))

    def _accepts_one(self, text: str) -> bool:
        base, slash, step = text.partition("/")
        if slash and not (step.isascii() and step.isdigit() and step.strip("0")):
            return False
        if base == "*":
            return True
        first, dash, last = base.partition("-")
        low, high = self.value(first), self.value(last if dash else first)
        return low is not None and high is not None and low <= high


_FIELDS = (
    _Field(0, 59),
    _Field(0, 23),
    _Field(1, 31),
    _Field(1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Field(0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def is_cron(text: str) -> bool:
    """Return whether GitHub takes ``text`` as the ``cron`` of a schedule."""
    parts = [part for part in text.strip(" ").split(" ") if part]
    return len(parts) == len(_FIELDS) and all(
        field.accepts(part) for field, part in zip(_FIELDS, parts, strict=True)
    )
