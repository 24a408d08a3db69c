"""The shell's own commands: those that change the shell, so that no program could do their work."""

from __future__ import annotations

import asyncio
import errno
import re
import signal
from typing import TYPE_CHECKING

from cloche.vm.fake.files import Folder, error
from cloche.vm.fake.launch import find_program
from cloche.vm.fake.shell import SYNTAX, Shell, ShellExit, set_options
from cloche.vm.fake.streams import decode, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloche.vm.fake.streams import Streams

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_STATUSES = 256


async def _cd(shell: Shell, words: list[str], _streams: Streams) -> int:
    target = words[1] if len(words) > 1 else shell.variables.get("HOME", "/")
    path = shell.task.files.resolve(target, shell.cwd)
    if not isinstance(shell.task.files.find(path), Folder):
        raise error(errno.ENOTDIR, target)
    shell.cwd = path
    shell.assign("PWD", path)
    return 0


async def _export(shell: Shell, words: list[str], streams: Streams) -> int:
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not _NAME.fullmatch(name):
            return await shell.say(f"export: `{word}': not a valid identifier", streams)
        if equals:
            shell.assign(name, value)
        shell.exported.add(name)
    return 0


async def _unset(shell: Shell, words: list[str], _streams: Streams) -> int:
    for name in words[1:]:
        shell.variables.pop(name, None)
        shell.exported.discard(name)
    return 0


async def _set(shell: Shell, words: list[str], streams: Streams) -> int:
    rest = set_options(shell.options, words[1:])
    if rest is None:
        return await shell.say(f"{' '.join(words)}: not part of the fake shell", streams, status=SYNTAX)
    if rest or "--" in words:
        shell.parameters = rest
    return 0


async def _exit(shell: Shell, words: list[str], streams: Streams) -> int:
    code = words[1] if len(words) > 1 else str(shell.status)
    if not re.fullmatch(r"-?\d+", code):
        code = str(await shell.say(f"exit: {code}: numeric argument required", streams, status=SYNTAX))
    raise ShellExit(int(code) % _STATUSES)


async def _eval(shell: Shell, words: list[str], streams: Streams) -> int:
    return await shell.run_text(" ".join(words[1:]), streams)


async def _source(shell: Shell, words: list[str], streams: Streams) -> int:
    if len(words) < 2:  # noqa: PLR2004 - a file is wanted
        return await shell.say(f"{words[0]}: filename argument required", streams, status=SYNTAX)
    return await shell.run_text(decode(shell.task.files.read(words[1], shell.cwd)), streams)


async def _exec(shell: Shell, words: list[str], streams: Streams) -> int:
    if len(words) < 2:  # noqa: PLR2004 - redirecting the shell itself is not done here
        return await shell.say("`exec' of no program is not part of the fake shell", streams, status=SYNTAX)
    raise ShellExit(await shell.program(words[1:], shell.env, streams, replacing=True))


async def _shift(shell: Shell, _words: list[str], _streams: Streams) -> int:
    shell.parameters = shell.parameters[1:]
    return 0


async def _read(shell: Shell, words: list[str], streams: Streams) -> int:
    line = bytearray()
    while (char := await streams.stdin.read(1)) not in {b"", b"\n"}:
        line += char
    names = [word for word in words[1:] if word != "-r"] or ["REPLY"]
    values = decode(bytes(line)).split(None, len(names) - 1)
    for number, name in enumerate(names):
        shell.assign(name, values[number].rstrip() if number < len(values) else "")
    return int(char == b"")


async def _trap(shell: Shell, words: list[str], streams: Streams) -> int:
    action, *names = words[1:] or [""]
    for name in names:
        number = _signal_number(name)
        if number is None:
            return await shell.say(f"trap: {name}: invalid signal specification", streams)
        if action == "-":
            shell.task.traps.pop(number, None)
        else:
            shell.task.traps[number] = action
    return 0


async def _wait(shell: Shell, words: list[str], _streams: Streams) -> int:
    pids = [int(word) for word in words[1:] if word.isdecimal()]
    return await shell.task.wait_for(pids)


async def _kill(shell: Shell, words: list[str], streams: Streams) -> int:
    given = [word for word in words[1:] if word != "-s"]
    name = "TERM"
    if given and (given[0].startswith("-") or "-s" in words):
        name = given.pop(0).removeprefix("-")
    number = _signal_number(name)
    if number is None or not given or not all(word.isdecimal() for word in given):
        return await shell.say("kill: usage: kill [-SIGNAL] PID…", streams, status=SYNTAX)
    missing = [word for word in given if not shell.task.kill(int(word), number)]
    for word in missing:
        await shell.say(f"kill: ({word}) - No such process", streams)
    await asyncio.sleep(0)
    return int(bool(missing))


async def _command(shell: Shell, words: list[str], streams: Streams) -> int:
    if words[1:2] != ["-v"]:
        return await shell.program(words[1:], shell.env, streams) if words[1:] else 0
    for name in words[2:]:
        path = name if name in COMMANDS else find_program(shell.task.files, name, shell.env, shell.cwd)
        if path is None:
            return 1
        await streams.stdout.write(encode(f"{path}\n"))
    return 0


def _signal_number(name: str) -> int | None:
    """Read a signal by number or name, with or without SIG; 0 for EXIT, ``None`` if there is none such."""
    if name.isdecimal() or name == "EXIT":
        return int(name) if name != "EXIT" else 0
    found = signal.Signals.__members__.get(f"SIG{name.removeprefix('SIG')}")
    return None if found is None else int(found)


COMMANDS: dict[str, Callable[[Shell, list[str], Streams], Awaitable[int]]] = {
    ".": _source,
    "cd": _cd,
    "command": _command,
    "eval": _eval,
    "exec": _exec,
    "exit": _exit,
    "export": _export,
    "kill": _kill,
    "read": _read,
    "set": _set,
    "shift": _shift,
    "source": _source,
    "trap": _trap,
    "unset": _unset,
    "wait": _wait,
}
"""Each takes the shell, its words (the first is its name) and its streams; its status."""
