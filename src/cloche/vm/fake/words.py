"""What a word of a shell script stands for: variables, ``$(…)``, splitting and file names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.vm.fake import tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.vm.fake.shell import Shell
    from cloche.vm.fake.streams import Streams

_Piece = tuple[str, bool]  # text, and whether it was quoted: then it is never split or matched

_WILDCARDS = frozenset("*?[")


async def fields(shell: Shell, words: Sequence[tree.Word], streams: Streams) -> list[str]:
    """Expand words to arguments: a word may become none, one or several."""
    arguments: list[str] = []
    for word in words:
        for pieces in await _split(shell, word, streams):
            arguments += _file_names(shell, pieces)
    return arguments


async def joined(shell: Shell, word: tree.Word, streams: Streams) -> str:
    """Expand a word to one text, as on the right of an assignment."""
    return "".join([await _expand(shell, part, streams) for part in word])


def _file_names(shell: Shell, pieces: Sequence[_Piece]) -> list[str]:
    plain = "".join(text for text, _ in pieces)
    if not any(not quoted and _WILDCARDS.intersection(text) for text, quoted in pieces):
        return [plain]
    pattern = "".join(_literal(text) if quoted else text for text, quoted in pieces)
    return shell.task.files.glob(pattern, shell.cwd) or [plain]


def _literal(text: str) -> str:
    return "".join(f"[{char}]" if char in _WILDCARDS else char for char in text)


async def _split(shell: Shell, word: tree.Word, streams: Streams) -> list[list[_Piece]]:
    found: list[list[_Piece]] = [[]]
    nothing = False  # "$@" without parameters is no field at all, unless something stands beside it
    for part in word:
        if isinstance(part, tree.Variable) and part.name == "@" and part.quoted:
            nothing = not shell.parameters
            _append(found, [[(parameter, True)] for parameter in shell.parameters])
            continue
        text = await _expand(shell, part, streams)
        if part.quoted or isinstance(part, tree.Text):
            found[-1].append((text, part.quoted))
            continue
        if text[:1].isspace() and found[-1]:
            found.append([])
        _append(found, [[(piece, False)] for piece in text.split()])
        if text[-1:].isspace() and found[-1]:
            found.append([])
    if nothing and not any(text for pieces in found for text, _ in pieces):
        return []
    return [pieces for pieces in found if pieces]


def _append(found: list[list[_Piece]], more: list[list[_Piece]]) -> None:
    """Add fields of which the first continues the last one there."""
    if more:
        found[-1] += more[0]
        found += more[1:]


async def _expand(shell: Shell, part: tree.Text | tree.Variable | tree.Substitution, streams: Streams) -> str:
    match part:
        case tree.Text(text=text):
            return text
        case tree.Substitution(script=script):
            return await shell.substitute(script, streams)
        case tree.Variable():
            return await _variable(shell, part, streams)


async def _variable(shell: Shell, part: tree.Variable, streams: Streams) -> str:
    value = shell.value(part.name)
    missing = value is None or (value == "" and part.operator.startswith(":"))
    match part.operator[-1:]:
        case "+":
            return "" if missing else await joined(shell, part.word, streams)
        case "-" | "=" if missing:
            value = await joined(shell, part.word, streams)
            if part.operator.endswith("="):
                shell.assign(part.name, value)
        case "?" if missing:
            message = await joined(shell, part.word, streams) or "parameter null or not set"
            await shell.give_up(f"{part.name}: {message}", streams)
        case "" if missing and "nounset" in shell.options:
            await shell.give_up(f"{part.name}: unbound variable", streams)
    return value or ""
