"""YAML text to a tree of nodes, with positions and GitHub's limits.

PyYAML's C parser gives events; the tree is built here, because GitHub reads YAML in its own way
(actions/runner, ``WorkflowParser/Conversion/YamlObjectReader``): YAML 1.2 core types, anchors and aliases
without merge keys, one document, and limits that are checked while events arrive, so that no input costs more
than it may. Duplicate keys are the schema's to refuse, as on GitHub: it knows which keys are compared.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING, NoReturn

import yaml

from cloche.errors import Position, WorkflowError
from cloche.records import record
from cloche.workflow.findings import diagnostic
from cloche.workflow.nodes import Mapping, Node, Scalar, Sequence
from cloche.workflow.scalars import (
    TAG_STRING,
    OutOfRangeError,
    UnknownTagError,
    resolve_plain,
    resolve_tagged,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.workflow.nodes import ScalarValue


@record
class Limits:
    """What a file may cost: characters, depth of nesting, and with aliases expanded YAML events and bytes.

    The defaults are GitHub's (actions/runner, ``ParseOptions``, ``YamlObjectReader``, ``TemplateMemory``).
    """

    characters: int = 1024 * 1024
    depth: int = 50
    events: int = 50_000
    size: int = 10 * 1024 * 1024


# What libyaml does not accept is refused here, by name and position. Compiling the second takes 4 ms, so that
# only files which need it pay for it.
_NOT_YAML_IN_ASCII = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
_NOT_YAML = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
_BYTES_PER_CHARACTER = 4
_BYTES_PER_NODE = 24  # how GitHub counts size: a fixed part, and two bytes a character
_STYLES = {"'": "SingleQuoted", '"': "DoubleQuoted", "|": "Literal", ">": "Folded"}


def read(text: str | bytes, path: str, *, limits: Limits | None = None) -> Node:
    """Read one YAML document.

    Raises WorkflowError with one diagnostic: whatever is wrong with the YAML itself ends the reading.
    """
    limits = limits or Limits()
    builder = _Builder(path, limits)
    for event in _events(_decode(text, path, limits), path):
        builder.add(event)
    return builder.finish()


def _decode(written: str | bytes, path: str, limits: Limits) -> str:
    if len(written) > limits.characters * (_BYTES_PER_CHARACTER if isinstance(written, bytes) else 1):
        _too_long(limits, path)
    text = written if isinstance(written, str) else _from_utf8(written, path)
    if len(text) > limits.characters:
        _too_long(limits, path)
    text = text.removeprefix("\ufeff")
    if wrong_character := re.search(_NOT_YAML_IN_ASCII if text.isascii() else _NOT_YAML, text):
        name = f"U+{ord(wrong_character[0]):04X}"
        place = _position_at(text[: wrong_character.start()], path)
        _fail(f"The character {name} is not allowed in YAML", place, "remove it, or write it as an escape")
    return text


def _from_utf8(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        place = _position_at(data[: error.start].decode(), path)
        wrong = data[error.start]
        _fail(f"The file is not valid UTF-8: byte 0x{wrong:02x}", place, "save the file as UTF-8")


def _too_long(limits: Limits, path: str) -> NoReturn:
    start = Position(path, 1, 1)
    _fail(f"The maximum file size of {limits.characters} characters has been exceeded", start)


def _position_at(before: str, path: str) -> Position:
    """Return the position that follows the text ``before``."""
    return Position(path, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _events(text: str, path: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        message = ": ".join(part for part in (error.context, error.problem) if part)
        character = "".join(text.splitlines()[line : line + 1])[column : column + 1]
        place = Position(path, line + 1, column + 1)
        _fail(f"The YAML is not valid: {message}", place, _hint(message, character))
    except yaml.YAMLError as error:
        _fail(f"The YAML is not valid: {error}", Position(path, 1, 1))


def _hint(message: str, character: str) -> str | None:
    if character == "\t":
        return "YAML does not allow tabs for indentation; use spaces"
    if character in {"@", "`", "%"}:
        return f"a value cannot start with {character}; put it in quotes"
    if "mapping values are not allowed" in message:
        return "put a value that holds ': ' in quotes, or check the indentation"
    if "expected ':'" in message or "block" in message:
        return "check the indentation of this line and of the lines above it"
    return None


def _fail(message: str, position: Position, hint: str | None = None) -> NoReturn:
    raise WorkflowError((diagnostic(message, position, hint),))


@record(frozen=False)
class _Part:
    """A finished node with what it costs: YAML events, bytes and levels of nesting, aliases expanded."""

    node: Node
    events: int
    size: int
    height: int


@record(frozen=False)
class _Open:
    """A sequence or mapping whose end has not come yet."""

    mapping: bool
    position: Position
    anchor: str | None
    first_event: int
    size_before: int
    height: int = 1
    key: Scalar | None = None
    items: list[Node] = field(default_factory=list)
    entries: list[tuple[Scalar, Node]] = field(default_factory=list)

    def node(self) -> Node:
        if self.mapping:
            return Mapping(tuple(self.entries), self.position)
        return Sequence(tuple(self.items), self.position)


class _Builder:
    """Builds the tree from events, counting as GitHub does: an alias costs all the events it stands for."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._events = 0
        self._size = 0
        self._documents = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, _Part | None] = {}
        self._root: Node | None = None

    def add(self, event: yaml.Event) -> None:
        """Take the next event; raises WorkflowError where the file breaks a rule."""
        size = (
            _BYTES_PER_NODE + 2 * len(event.value) if isinstance(event, yaml.ScalarEvent) else _BYTES_PER_NODE
        )
        self._count(1, size, event)
        if isinstance(event, yaml.ScalarEvent):
            self._place(_Part(self._scalar(event), 1, size, 0), event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                place = self._position(event)
                self.fail("A second YAML document starts here", place, "a workflow file holds one document")

    def finish(self) -> Node:
        """Return the tree."""
        if self._root is None:
            start = Position(self._path, 1, 1)
            self.fail("The workflow file is empty", start, "a workflow needs at least `on` and `jobs`")
        return self._root

    def fail(self, message: str, position: Position, hint: str | None = None) -> NoReturn:
        """Raise WorkflowError."""
        _fail(message, position, hint)

    def _position(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        return Position(self._path, mark.line + 1, mark.column + 1) if mark else Position(self._path, 1, 1)

    def _count(self, events: int, size: int, event: yaml.Event) -> None:
        self._events += events
        self._size += size
        if self._size > self._limits.size:
            self.fail("Maximum object size exceeded", self._position(event))
        if self._events > self._limits.events:
            self.fail("Maximum YAML nodes exceeded", self._position(event))

    def _check_depth(self, height: int, event: yaml.Event) -> None:
        if len(self._open) + height > self._limits.depth:
            self.fail("Maximum object depth exceeded", self._position(event))

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        self._check_depth(1, event)
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._open.append(_Open(mapping, self._position(event), event.anchor, self._events, self._size))
        if event.anchor:
            self._anchors[event.anchor] = None

    def _end(self) -> None:
        done = self._open.pop()
        events, size = self._events - done.first_event + 1, self._size - done.size_before
        self._place(_Part(done.node(), events, size, done.height), done.anchor)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            self.fail(f"Unknown anchor '{event.anchor}'", self._position(event))
        part = self._anchors[event.anchor]
        if part is None:
            self.fail(f"The anchor '{event.anchor}' contains itself", self._position(event))
        self._check_depth(part.height, event)
        self._count(part.events - 1, part.size, event)
        self._place(part, None)

    def _place(self, part: _Part, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = part
        if not self._open:
            self._root = part.node
            return
        parent = self._open[-1]
        parent.height = max(parent.height, part.height + 1)
        if not parent.mapping:
            parent.items.append(part.node)
        elif parent.key is not None:
            parent.entries.append((parent.key, part.node))
            parent.key = None
        elif isinstance(part.node, Scalar):
            parent.key = part.node
        else:
            self.fail("A key must be a plain value, not a sequence or a mapping", part.node.position)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        place = self._position(event)
        where = f"on line {place.line} and column {place.column}"
        style = event.style or ""
        if event.tag and style and event.tag != TAG_STRING:
            message = f"The scalar style '{_STYLES[style]}' {where} is not valid with the tag '{event.tag}'"
            self.fail(message, place)
        try:
            value = _resolve(event.value, event.tag, quoted=bool(style))
        except OutOfRangeError as error:
            self.fail(f"The value '{event.value[:100]}' {where} is invalid for the type '{error.tag}'", place)
        except UnknownTagError as error:
            self.fail(f"Unexpected tag '{error}'", place)
        return Scalar(value, event.value, place, bool(style) or event.tag == TAG_STRING)


def _resolve(text: str, tag: str | None, *, quoted: bool) -> ScalarValue:
    if tag is not None:
        return resolve_tagged(text, tag)
    return text if quoted else resolve_plain(text)
