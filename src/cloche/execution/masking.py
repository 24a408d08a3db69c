"""Secrets, found in every form they may take in a step's output, and replaced by ``***``.

Rules: "Masking a value" in https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
and the encoders of actions/runner (base64 at three alignments, JSON, URI, XML, quotes). Two things are done
more thoroughly here: the base64 forms are the parts that no neighbour can change, so that a secret in the
middle of a longer encoded text is found too; and encoded text folded at 64 or 76 columns is found by line.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import ahocorasick

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MASK = "***"
MAX_GUEST_PATTERNS = 2 * 1024 * 1024
"""Characters of patterns that steps may add with ``::add-mask::``; an automaton takes 40 bytes for each."""

_FOLDS = (64, 76)
_SHORTEST_FRAGMENT = 4
"""Shorter pieces of base64 would match ordinary words."""

Span = tuple[int, int]


class TooManyMasksError(ValueError):
    """Raised by ``Masker.add`` with ``bounded`` set, when the guest has used up MAX_GUEST_PATTERNS."""


class _Level:
    """Some patterns and the automaton that finds them all in one pass."""

    def __init__(self, patterns: set[str]) -> None:
        self.patterns = patterns
        self._automaton = ahocorasick.Automaton()
        for pattern in patterns:
            self._automaton.add_word(pattern, len(pattern))
        self._automaton.make_automaton()

    def spans(self, text: str) -> list[Span]:
        return [(end + 1 - length, end + 1) for end, length in self._automaton.iter(text)]


class Masker:
    """The values of one run that must not be shown. Values may be added at any time, from one thread.

    Automata are built when they are first needed. Patterns live in levels, each at least twice the size of
    the next, so that adding values one by one between lines of output does not rebuild everything each time.
    ``full`` is set once a value could not be added: what a guest writes from then on cannot be trusted.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._fresh: set[str] = set()
        self._levels: list[_Level] = []
        self._budget = MAX_GUEST_PATTERNS
        self.longest = 0
        self.full = False
        for value in values:
            self.add(value)

    def add(self, value: str, *, bounded: bool = False) -> None:
        """Mask ``value``, each of its lines, and the encoded forms of all of them; blank values are ignored.

        ``bounded`` is for values that the guest names: raises TooManyMasksError when they are too many or
        too long for the host to keep.
        """
        fresh: set[str] = set()
        left = self._budget
        for form in _forms(value):
            if form not in self._known and form not in fresh:
                fresh.add(form)
                left -= len(form)
            if bounded and left < 0:
                self.full = True
                raise TooManyMasksError(
                    f"A run can add {MAX_GUEST_PATTERNS >> 20} MiB of masks in all, no more."
                )
        if bounded:
            self._budget = left
        self._known |= fresh
        self._fresh |= fresh
        self.longest = max(self.longest, max(map(len, fresh), default=0))

    def saved(self) -> dict[str, Any]:
        """Return all that it looks for, for ``load`` of another one."""
        return {"known": sorted(self._known), "budget": self._budget, "full": self.full}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Look for what another one looked for, too."""
        fresh = set(saved["known"]) - self._known
        self._known |= fresh
        self._fresh |= fresh
        self._budget = min(self._budget, saved["budget"])
        self.longest = max(self.longest, max(map(len, fresh), default=0))
        self.full = self.full or saved["full"]

    def mask(self, text: str) -> str:
        """``text`` with every secret replaced; overlapping and adjoining ones become one ``***``."""
        spans = self.spans(text)
        return cover(text, spans) if spans else text

    def holds_secret(self, text: str) -> bool:
        """Whether anything in ``text`` would be masked."""
        return bool(self.spans(text))

    def spans(self, text: str) -> list[Span]:
        """Where secrets stand in ``text``: start and end, in order, overlapping and adjoining ones united."""
        if self._fresh:
            self._build()
        found: list[Span] = []
        for level in self._levels:
            found += level.spans(text)
        return unite(found) if found else found

    def _build(self) -> None:
        fresh, self._fresh = self._fresh, set()
        while self._levels and len(self._levels[-1].patterns) < 2 * len(fresh):
            fresh |= self._levels.pop().patterns
        self._levels.append(_Level(fresh))


def unite(spans: Iterable[Span]) -> list[Span]:
    """Put spans in order; overlapping and adjoining ones become one."""
    united: list[Span] = []
    for start, end in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


def cover(text: str, spans: Iterable[Span]) -> str:
    """``text`` with each of ``spans`` (in order, apart from each other) replaced by ``***``."""
    parts: list[str] = []
    position = 0
    for start, end in spans:
        parts += (text[position:start], MASK)
        position = end
    parts.append(text[position:])
    return "".join(parts)


def _forms(value: str) -> Iterator[str]:
    """Everything to look for when ``value`` is a secret; surrounding blanks are never part of it."""
    whole = value.encode("utf-8", "surrogatepass").decode("utf-8", "replace").strip()
    for secret in dict.fromkeys((whole, *map(str.strip, whole.splitlines()))):
        if secret:
            yield from _encodings(secret)


def _encodings(secret: str) -> Iterator[str]:
    yield secret
    yield from _escapes(secret)
    raw = secret.encode()
    for offset in range(3):
        yield from _base64(raw, offset)


def _escapes(secret: str) -> Iterator[str]:
    """How JSON, URLs, XML, shells, expressions and command lines write the secret."""
    from urllib.parse import quote, quote_plus

    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield quote(secret, safe="")
    yield quote(secret, safe="!'()*")
    yield quote_plus(secret)
    xml = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    yield xml.replace("'", "&apos;")
    yield secret.replace('"', '\\"')
    yield secret.replace("'", "''")
    yield secret.replace("'", "'\\''")
    unquoted = secret.removeprefix('"').removesuffix('"')
    if len(unquoted) == len(secret) - 2 and len(secret) > 8:  # noqa: PLR2004 - the runner's bound
        yield unquoted


def _base64(raw: bytes, offset: int) -> Iterator[str]:
    """Yield ``raw`` in base64 with ``offset`` bytes before it: to its end, and with anything behind it."""
    encoded = base64.b64encode(bytes(offset) + raw).decode()
    first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
    fragments = {encoded[first:], encoded[first:last]}
    if offset == 0:
        fragments |= {encoded[i : min(i + width, last)] for width in _FOLDS for i in range(0, last, width)}
    for fragment in fragments:
        if len(fragment) >= _SHORTEST_FRAGMENT:
            yield fragment
            yield fragment.translate(_URL_ALPHABET)


_URL_ALPHABET = str.maketrans("+/", "-_")
