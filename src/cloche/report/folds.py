"""The output of a running step that is not shown: groups, kept for when the step fails."""

from __future__ import annotations

from collections import deque
from dataclasses import field

from cloche.records import record
from cloche.report.summary import Tail

_KEPT_CHARACTERS = 64 * 1024
_KEPT_GROUPS = 8


@record(frozen=False)
class Fold:
    """A group: its title, how many lines it has, and the last of them."""

    title: str
    tail: Tail = field(default_factory=lambda: Tail(_KEPT_CHARACTERS))


class Folds:
    """The groups of one step, the last few of them; GitHub's groups do not nest, a new one ends the old."""

    def __init__(self) -> None:
        self.open: Fold | None = None
        self.closed: deque[Fold] = deque(maxlen=_KEPT_GROUPS)
        self.spoke = False
        """Whether anything of the step was shown yet."""

    def begin(self, title: str) -> None:
        """Begin a group."""
        self.open = Fold(title)

    def end(self) -> Fold | None:
        """End the open group and hand it back, if one was open."""
        fold, self.open = self.open, None
        if fold:
            self.closed.append(fold)
        return fold
