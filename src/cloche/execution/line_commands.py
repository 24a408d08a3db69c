"""Commands in a step's output: ``::name key=value,…::data`` and the older ``##[name key=value;…]data``.

Rules: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands and
actions/runner, which says what the page leaves out: what is refused, with which words, and what then becomes
of the step. Pure: lines go in, what they mean comes out.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from cloche.events import AnnotationLevel

_STOP = "stop-commands"
_DEPRECATED = (
    "The `{0}` command is deprecated and will be disabled soon. Please upgrade to using Environment Files. "
    "For more information see: "
    "https://github.blog/changelog/2022-10-11-github-actions-deprecating-save-state-and-set-output-commands/"
)
_DISABLED = (
    "The `{0}` command is disabled. Please upgrade to using Environment Files or opt into unsecure command "
    "execution by setting the `ACTIONS_ALLOW_UNSECURE_COMMANDS` environment variable to `true`. "
    "For more information see: "
    "https://github.blog/changelog/2020-10-01-github-actions-deprecating-set-env-and-add-path-commands/"
)
_BAD_STOP = (
    "You cannot use a endToken that is an empty string, the string 'pause-logging', or another workflow "
    "command. For more information see: https://docs.github.com/actions/learn-github-actions/"
    "workflow-commands-for-github-actions#example-stopping-and-starting-workflow-commands or opt into "
    "insecure command execution by setting the `ACTIONS_ALLOW_UNSECURE_STOPCOMMAND_TOKENS` environment "
    "variable to `true`."
)
_NO_MATCHERS = "Problem matchers are not supported: `{0}` has no effect."


@record
class Command:
    """A command as written. Property names are as typed; ``get`` takes them in any case, like the runner."""

    name: str
    data: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)

    def get(self, key: str) -> str | None:
        """Return the property ``key``, or ``None``; of several that differ in case only, the last."""
        values = [value for name, value in self.properties.items() if name.lower() == key]
        return values[-1] if values else None


@record
class Output:
    """Text to show: whole lines, each with its newline."""

    text: str


@record
class Group:
    """``::group::`` (``title`` set) or ``::endgroup::`` (``None``)."""

    title: str | None


@record
class Issue:
    """An annotation. ``failed``: it also fails the step, whatever its exit code."""

    level: AnnotationLevel
    message: str
    title: str | None = None
    file: str | None = None
    line: int | None = None
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None
    failed: bool = False


@record
class Mask:
    """``::add-mask::``: what follows must not show ``value``."""

    value: str


@record
class Assign:
    """A value for an output, a state, an environment variable, or (``name`` empty) a folder for PATH."""

    kind: Literal["output", "state", "env", "path"]
    name: str
    value: str


Effect = Output | Group | Issue | Mask | Assign


def parse(line: str, known: Container[str]) -> Command | None:
    """Return the command in ``line``, if any. ``known`` holds the names of commands, in lower case."""
    return _parse_colons(line, known) or _parse_brackets(line, known)


def _parse_colons(line: str, known: Container[str]) -> Command | None:
    text = line.lstrip()
    if not text.startswith("::"):
        return None
    info, separator, data = text[2:].partition("::")
    name, _, properties = info.partition(" ")
    if not separator or name.lower() not in known:
        return None
    return Command(name, _unescape(data, _DATA), dict(_properties(properties.strip(), ",", _PROPERTY)))


def _parse_brackets(line: str, known: Container[str]) -> Command | None:
    _, prefix, rest = line.partition("##[")
    info, separator, data = rest.partition("]")
    name, _, properties = info.partition(" ")
    if not prefix or not separator or name.lower() not in known:
        return None
    return Command(name, _unescape(data, _BRACKETS), dict(_properties(properties, ";", _BRACKETS)))


def _properties(text: str, separator: str, escapes: _Escapes) -> Iterator[tuple[str, str]]:
    """Yield the pairs; surplus ``=`` around a name vanish, and pairs without value are no pairs."""
    for part in text.split(separator):
        name, _, value = part.lstrip("=").partition("=")
        if value := value.lstrip("="):
            yield name, _unescape(value, escapes)


_Escapes = tuple[tuple[str, str], ...]
_DATA: _Escapes = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))
_PROPERTY: _Escapes = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))
_BRACKETS: _Escapes = (("%3B", ";"), ("%0D", "\r"), ("%0A", "\n"), ("%5D", "]"), ("%25", "%"))


def _unescape(text: str, escapes: _Escapes) -> str:
    if "%" in text:
        for escape, character in escapes:
            text = text.replace(escape, character)
    return text


class CommandReader:
    """Reads the output of one step; keeps whether commands are stopped or echoed.

    ``allow_unsecure`` is the step's ``ACTIONS_ALLOW_UNSECURE_COMMANDS``, ``allow_any_token`` its
    ``ACTIONS_ALLOW_UNSECURE_STOPCOMMAND_TOKENS``; ``echo`` is how ``::echo::`` stands at the start.
    """

    def __init__(
        self, *, allow_unsecure: bool = False, allow_any_token: bool = False, echo: bool = False
    ) -> None:
        self._allow_unsecure = allow_unsecure
        self._allow_any_token = allow_any_token
        self._echo = echo
        self._token: str | None = None

    def read(self, text: str) -> Iterator[Effect]:
        """Yield what ``text``, whole lines, means, in order. Act on each before asking for the next one."""
        if "::" not in text and "##[" not in text:
            yield Output(text)
            return
        plain = start = 0
        while start < len(text):
            end = text.index("\n", start) + 1
            line = text[start : end - 1]
            may_be_one = "##[" in line or line.lstrip().startswith("::")
            if may_be_one and (effects := self._line(line)) is not None:
                if plain < start:
                    yield Output(text[plain:start])
                yield from effects
                plain = end
            start = end
        if plain < start:
            yield Output(text[plain:])

    def _line(self, line: str) -> Iterator[Effect] | None:
        """Return what a line means, or ``None`` when it is just text."""
        if self._token is None:
            command = parse(line, _KNOWN)
            return self._obey(command, line) if command else None
        command = parse(line, {*_KNOWN, self._token})
        if command is None or command.name.lower() != self._token:
            return None
        self._token = None
        return iter((Output(line + "\n"),))

    def _obey(self, command: Command, line: str) -> Iterator[Effect]:
        name = command.name.lower()
        if name == _STOP:
            yield from self._stop(command, line)
            return
        if self._echo and name not in _NEVER_ECHOED:
            yield Output(line + "\n")
        try:
            if name == "echo":
                self._set_echo(command.data)
                return
            self._check_allowed(name)
            if name == "add-mask" and self._echo and command.data.strip():
                yield Output("::add-mask::***\n")
            yield from _HANDLERS[name](command)
        except _CommandError as error:
            shown = name if name in _NEVER_ECHOED else line
            yield from command_failed(f"command '{shown}'", str(error))

    def _stop(self, command: Command, line: str) -> Iterator[Effect]:
        token = command.data
        if not self._allow_any_token and (not token or token.lower() in {*_KNOWN, "pause-logging"}):
            yield from command_failed(f"command '{line}'", _BAD_STOP)
            return
        self._token = token.lower()
        if len(token) > _SHORT_TOKEN:
            yield Mask(token)
        yield Output(line + "\n")

    def _check_allowed(self, name: str) -> None:
        if name in _UNSECURE and not self._allow_unsecure:
            raise _CommandError(_DISABLED.format(name))

    def _set_echo(self, data: str) -> None:
        match data.strip().upper():
            case "ON":
                self._echo = True
            case "OFF":
                self._echo = False
            case _:
                raise _CommandError(
                    "Invalid echo command value. Possible values can be: 'on', 'off'. "
                    f"Current value is: '{data}'."
                )


_SHORT_TOKEN = 6


def command_failed(what: str, why: str) -> Iterator[Issue]:
    """Yield the runner's two errors for a command that it could not carry out, which fails the step."""
    yield Issue("error", f"Unable to process {what} successfully.", failed=True)
    yield Issue("error", why, failed=True)


class _CommandError(Exception):
    """A command that cannot be carried out; the message is for the user."""


def _add_mask(command: Command) -> Iterator[Effect]:
    if command.data.strip():
        yield Mask(command.data)
    else:
        yield Issue("warning", "Can't add secret mask for empty string in ##[add-mask] command.")


def _name_of(command: Command) -> str:
    if name := command.get("name"):
        return name
    raise _CommandError(f"Required field 'name' is missing in ##[{command.name}] command.")


def _set_output(command: Command) -> Iterator[Effect]:
    yield Issue("warning", _DEPRECATED.format("set-output"))
    yield Assign("output", _name_of(command), command.data)


def _save_state(command: Command) -> Iterator[Effect]:
    yield Issue("warning", _DEPRECATED.format("save-state"))
    yield Assign("state", _name_of(command), command.data)


def _set_env(command: Command) -> Iterator[Effect]:
    name = _name_of(command)
    if name.upper() == "NODE_OPTIONS":
        yield Issue("error", "Can't update NODE_OPTIONS environment variable using ::set-env:: command.")
    else:
        yield Assign("env", name, command.data)


def _add_path(command: Command) -> Iterator[Effect]:
    if not command.data:
        raise _CommandError("A folder is missing in ##[add-path] command.")
    yield Assign("path", "", command.data)


def _group(command: Command) -> Iterator[Effect]:
    yield Group(command.data)


def _end_group(_: Command) -> Iterator[Effect]:
    yield Group(None)


def _debug(command: Command) -> Iterator[Effect]:
    yield Issue("debug", command.data)


def _matcher(command: Command) -> Iterator[Effect]:
    yield Issue("notice", _NO_MATCHERS.format(command.name))


def _issue(command: Command) -> Iterator[Effect]:
    level: AnnotationLevel
    match command.name.lower():
        case "error":
            level = "error"
        case "warning":
            level = "warning"
        case _:
            level = "notice"
    place, complaints = _place(command)
    for complaint in complaints:
        yield Issue("debug", complaint)
    yield Issue(
        level,
        command.data,
        title=command.get("title"),
        file=command.get("file"),
        line=place.line,
        end_line=place.end_line,
        column=place.column,
        end_column=place.end_column,
    )


@record(frozen=False)
class _Place:
    line: int | None
    end_line: int | None
    column: int | None
    end_column: int | None


def _place(command: Command) -> tuple[_Place, list[str]]:
    """Return where an issue points and, for what makes no sense and is dropped, the runner's complaints."""
    place = _Place(*(_integer(command.get(key)) for key in ("line", "endline", "col", "endcolumn")))
    complaints: list[str] = []

    def complain(what: str) -> None:
        complaints.append(f"Invalid {command.name} command value. {what}")

    if place.end_line is not None and place.line is None:
        complain("'endLine' can only be set if 'line' is provided")
        place.line = place.end_line
    if place.end_column is not None and place.column is None:
        complain("'endColumn' can only be set if 'col' is provided")
        place.column = place.end_column
    if place.line is None and place.column is not None:
        complain("'col' and 'endColumn' can only be set if 'line' value is provided.")
        place.column = place.end_column = None
    if place.end_line not in {None, place.line} and place.column is not None:
        complain("'col' and 'endColumn' cannot be set if 'line' and 'endLine' are different values.")
        place.column = place.end_column = None
    if place.line is not None and place.end_line is not None and place.end_line < place.line:
        complain("'endLine' cannot be less than 'line'.")
        place.line = place.end_line = None
    if place.column is not None and place.end_column is not None and place.end_column < place.column:
        complain("'endColumn' cannot be less than 'col'.")
        place.column = place.end_column = None
    return place, complaints


def _integer(text: str | None) -> int | None:
    """Return an integer of 32 bits as .NET reads it: blanks around and a sign are fine."""
    try:
        number = int(text) if text and text.isascii() and "_" not in text else None
    except ValueError:
        return None
    return number if number is not None and -(2**31) <= number < 2**31 else None


_HANDLERS: Mapping[str, Callable[[Command], Iterator[Effect]]] = {
    "add-mask": _add_mask,
    "add-matcher": _matcher,
    "add-path": _add_path,
    "debug": _debug,
    "endgroup": _end_group,
    "error": _issue,
    "group": _group,
    "notice": _issue,
    "remove-matcher": _matcher,
    "save-state": _save_state,
    "set-env": _set_env,
    "set-output": _set_output,
    "warning": _issue,
}
_KNOWN = frozenset({*_HANDLERS, "echo", _STOP})
_NEVER_ECHOED = frozenset({"add-mask", "debug", "error", "notice", "warning"})
_UNSECURE = frozenset({"set-env", "add-path"})
