r"""GitHub's filter patterns for ``branches``, ``tags`` and ``paths``.

The language is GitHub's (docs, "Filter pattern cheat sheet"): ``*`` is any characters but ``/``, ``**`` any
characters, ``?`` zero or one and ``+`` one or more of the character before, ``[]`` one character of a set,
``!`` at the start negates, ``\`` escapes. Matching takes time in proportion to the pattern times the name,
whatever the pattern: the patterns come from whoever wrote the workflow.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class PatternError(ValueError):
    """The pattern breaks a rule of the language; the message says which."""


@record
class _Step:
    """One element of a pattern: what it takes, and how often.

    ``one_of`` is a set of characters, ``segment`` any character but ``/``, ``any`` any character, and
    ``folders`` nothing or any folders with their last ``/``.
    """

    kind: Literal["one_of", "segment", "any", "folders"]
    characters: frozenset[str] = frozenset()
    optional: bool = False
    repeat: bool = False

    def takes(self, character: str) -> bool:
        """Return whether one character fits."""
        if self.kind == "one_of":
            return character in self.characters
        return self.kind != "segment" or character != "/"


@record
class Pattern:
    """A compiled pattern; ``negative`` if it was written with ``!``."""

    steps: tuple[_Step, ...]
    negative: bool = False

    def matches(self, name: str) -> bool:
        """Whether the whole of ``name`` fits, regardless of ``negative``."""
        states = self._skipping({0})
        for character in name:
            states = self._skipping(self._after(states, character))
            if not states:
                return False
        return len(self.steps) in states

    def _after(self, states: set[int], character: str) -> set[int]:
        """Return the states reached by taking one character.

        A state is the index of the step it stands before; ``~index`` stands inside a folder's name.
        """
        reached = set()
        for state in states:
            index = max(state, ~state)
            if index == len(self.steps):
                continue
            step = self.steps[index]
            if step.kind == "folders":
                reached.add(index if character == "/" else ~index)
            elif step.takes(character):
                reached.update((index, index + 1) if step.repeat else (index + 1,))
        return reached

    def _skipping(self, states: set[int]) -> set[int]:
        """Return the same states and those that optional steps make reachable without a character."""
        reached = set(states)
        for state in states:
            here = state
            while 0 <= here < len(self.steps) and self.steps[here].optional:
                here += 1
                reached.add(here)
        return reached


@lru_cache(maxsize=512)
def compile_pattern(text: str) -> Pattern:
    """Compile one pattern. PatternError if it is not one."""
    negative = text.startswith("!")
    steps = _Compiler(text, start=int(negative)).steps()
    if not steps:
        raise PatternError(f"the pattern '{text}' is empty")
    return Pattern(steps, negative)


def included(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Whether ``branches``, ``tags`` or ``paths`` lets any of ``names`` through; the last match decides."""
    compiled = [compile_pattern(pattern) for pattern in patterns]
    return any(_last_match(compiled, name) for name in names)


def ignored(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Whether ``branches-ignore``, ``tags-ignore`` or ``paths-ignore`` stops every one of ``names``."""
    compiled = [compile_pattern(pattern) for pattern in patterns]
    return all(any(pattern.matches(name) != pattern.negative for pattern in compiled) for name in names)


def _last_match(patterns: Sequence[Pattern], name: str) -> bool:
    """Whether the last pattern that fits ``name`` is a positive one."""
    for pattern in reversed(patterns):
        if pattern.matches(name):
            return not pattern.negative
    return False


class _Compiler:
    def __init__(self, text: str, *, start: int) -> None:
        self._text = text
        self._at = start

    def steps(self) -> tuple[_Step, ...]:
        steps: list[_Step] = []
        while self._at < len(self._text):
            steps.append(self._step(first=not steps, after_slash=self._text[self._at - 1 : self._at] == "/"))
        return tuple(steps)

    def _step(self, *, first: bool, after_slash: bool) -> _Step:
        if self._take("**"):
            if (first or after_slash) and self._take("/"):
                return _Step("folders", optional=True, repeat=True)
            return self._unquantified(_Step("any", optional=True, repeat=True))
        if self._take("*"):
            return self._unquantified(_Step("segment", optional=True, repeat=True))
        return self._quantified(_Step("one_of", self._characters()))

    def _characters(self) -> frozenset[str]:
        if self._take("["):
            return self._set()
        escaped = self._take("\\")
        if self._at == len(self._text):
            raise PatternError(f"the pattern '{self._text}' ends in the middle of an escape")
        character = self._text[self._at]
        if character in {"?", "+"} and not escaped:
            raise PatternError(f"in the pattern '{self._text}' nothing stands before '{character}' to repeat")
        self._at += 1
        return frozenset(character)

    def _quantified(self, step: _Step) -> _Step:
        if self._take("?"):
            return self._unquantified(replace(step, optional=True))
        if self._take("+"):
            return self._unquantified(replace(step, repeat=True))
        return step

    def _unquantified(self, step: _Step) -> _Step:
        if self._text[self._at : self._at + 1] in {"?", "+"}:
            raise PatternError(f"in the pattern '{self._text}' a character has two of '*', '?' and '+'")
        return step

    def _set(self) -> frozenset[str]:
        end = self._text.find("]", self._at)
        if end <= self._at:
            raise PatternError(f"in the pattern '{self._text}' a '[' has no characters or no ']'")
        members = self._text[self._at : end]
        self._at = end + 1
        characters: set[str] = set()
        while members:
            if len(members) > 2 and members[1] == "-":  # noqa: PLR2004 - first, dash, last
                characters |= self._range(members[0], members[2])
                members = members[3:]
            else:
                characters.add(members[0])
                members = members[1:]
        return frozenset(characters)

    def _range(self, first: str, last: str) -> set[str]:
        same_kind = (
            any(kind(first) and kind(last) for kind in (str.isdigit, str.islower, str.isupper))
            and (first + last).isascii()
        )
        if not same_kind or first > last:
            raise PatternError(f"in the pattern '{self._text}' the range '{first}-{last}' is not one")
        return {chr(code) for code in range(ord(first), ord(last) + 1)}

    def _take(self, expected: str) -> bool:
        if not self._text.startswith(expected, self._at):
            return False
        self._at += len(expected)
        return True
