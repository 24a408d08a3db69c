"""The programs a fake job root comes with, each carried out by the host in a few lines."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import signal
from typing import TYPE_CHECKING

from cloche.vm.fake.files import File, Folder, Link
from cloche.vm.fake.launch import execute
from cloche.vm.fake.streams import WINDOW, decode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloche.vm.fake.files import Node
    from cloche.vm.fake.streams import Call, Input

_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "e": "\x1b",
    "\\": "\\",
}
_ESCAPE = re.compile(r"\\(?:([ntrabfve\\])|0([0-7]{1,3})|([0-7]{1,3})|x([0-9a-fA-F]{1,2}))")


def _unescape(text: str) -> str:
    def char(found: re.Match[str]) -> str:
        if found[1]:
            return _ESCAPES[found[1]]
        number = int(found[4], 16) if found[4] else int(found[2] or found[3], 8)
        return decode(bytes([number % 256]))

    return _ESCAPE.sub(char, text)


async def _drain(source: Input) -> bytes:
    data = bytearray()
    while chunk := await source.read(WINDOW):
        data += chunk
    return bytes(data)


async def _echo(call: Call) -> int:
    words = list(call.argv[1:])
    newline, escapes = True, False
    while words and re.fullmatch(r"-[neE]+", words[0]):
        flags = words.pop(0)
        newline = newline and "n" not in flags
        escapes = escapes or "e" in flags
    text = " ".join(words)
    await call.print((_unescape(text) if escapes else text) + ("\n" if newline else ""))
    return 0


async def _printf(call: Call) -> int:
    if len(call.argv) < 2:  # noqa: PLR2004 - a format is wanted
        return await call.complain("usage: printf FORMAT [ARGUMENT…]")
    template, words = call.argv[1], list(call.argv[2:])
    conversions = re.findall(r"%(?!%)", template)
    while True:
        taken, words = words[: len(conversions)], words[len(conversions) :]
        try:
            await call.print(_format(template, taken))
        except (ValueError, TypeError):
            return await call.complain(f"{template}: a format the fake does not know")
        if not words or not conversions:
            return 0


def _format(template: str, words: list[str]) -> str:
    left = iter(words)

    def convert(found: re.Match[str]) -> str:
        if found[2] == "%":
            return "%"
        word = next(left, "")
        match found[2]:
            case "s":
                return f"%{found[1]}s" % word
            case "b":
                return _unescape(word)
            case kind if kind in "dioxXu":
                return f"%{found[1]}{kind}" % int(word or "0", 0)
        raise ValueError(found[0])

    parts = re.split(r"(%[-+ 0#]*\d*(?:\.\d+)?[a-zA-Z%])", template)
    pattern = re.compile(r"%([^a-zA-Z%]*)([a-zA-Z%])")
    return "".join(pattern.sub(convert, p) if n % 2 else _unescape(p) for n, p in enumerate(parts))


async def _cat(call: Call) -> int:
    status = 0
    for name in call.argv[1:] or ["-"]:
        try:
            source = call.streams.stdin if name == "-" else call.open(name)
        except OSError as wrong:
            status = await call.complain(f"{name}: {wrong.strerror}")
            continue
        while chunk := await source.read(WINDOW):
            await call.streams.stdout.write(chunk)
    return status


async def _head(call: Call) -> int:
    words = list(call.argv[1:])
    unit, count = "-n", 10
    if words and words[0] in {"-c", "-n"}:
        unit, count, words = words[0], int(words[1]), words[2:]
    source = call.open(words[0]) if words else call.streams.stdin
    while count > 0 and (chunk := await source.read(min(WINDOW, count) if unit == "-c" else 1)):
        await call.streams.stdout.write(chunk)
        count -= len(chunk) if unit == "-c" else chunk.count(b"\n")
    return 0


async def _wc(call: Call) -> int:
    data = await _drain(call.streams.stdin)
    count = {"-c": len(data), "-l": data.count(b"\n"), "-w": len(data.split())}
    kinds = call.argv[1:2] or ["-c"]
    if kinds[0] not in count:
        return await call.complain(f"{kinds[0]}: the fake counts -c, -l or -w of its input")
    await call.print(f"{count[kinds[0]]}\n")
    return 0


async def _true(_call: Call) -> int:
    return 0


async def _false(_call: Call) -> int:
    return 1


async def _sleep(call: Call) -> int:
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
    seconds = 0.0
    for word in call.argv[1:]:
        found = re.fullmatch(r"(\d*\.?\d+)([smhd]?)", word)
        if not found and word not in {"inf", "infinity"}:
            return await call.complain(f"invalid time interval '{word}'")
        seconds += float(found[1]) * units[found[2]] if found else float("inf")
    if seconds == float("inf"):
        await asyncio.Event().wait()
    await call.task.root.guest.sleep(seconds)
    return 0


async def _mkdir(call: Call) -> int:
    parents = "-p" in call.argv
    status = 0
    for name in call.argv[1:]:
        if name.startswith("-"):
            continue
        try:
            if parents:
                call.task.files.make_folders(name, call.cwd)
            else:
                call.task.files.add(name, Folder(), call.cwd)
        except OSError as wrong:
            status = await call.complain(f"cannot create directory '{name}': {wrong.strerror}")
    return status


async def _rm(call: Call) -> int:
    flags = "".join(word[1:] for word in call.argv[1:] if word.startswith("-"))
    status = 0
    for name in call.argv[1:]:
        if name.startswith("-"):
            continue
        try:
            call.task.files.remove(name, call.cwd, recursive="r" in flags or "R" in flags)
        except FileNotFoundError as wrong:
            if "f" not in flags:
                status = await call.complain(f"cannot remove '{name}': {wrong.strerror}")
        except OSError as wrong:
            status = await call.complain(f"cannot remove '{name}': {wrong.strerror}")
    return status


async def _touch(call: Call) -> int:
    for name in call.argv[1:]:
        call.task.files.write(name, b"", call.cwd, append=True)
    return 0


async def _ln(call: Call) -> int:
    words = [word for word in call.argv[1:] if not word.startswith("-")]
    if "-s" not in call.argv or len(words) != 2:  # noqa: PLR2004 - target and name
        return await call.complain("the fake knows `ln -s TARGET NAME` only")
    call.task.files.add(words[1], Link(words[0]), call.cwd, follow=False)
    return 0


async def _chmod(call: Call) -> int:
    mode, *names = call.argv[1:]
    for name in names:
        node = call.task.files.find(name, call.cwd)
        if re.fullmatch(r"[0-7]{3,4}", mode):
            node.mode = int(mode, 8)
        elif mode in {"+x", "a+x", "u+x"}:
            node.mode |= 0o100 if mode == "u+x" else 0o111
        else:
            return await call.complain(f"{mode}: the fake knows octal modes and +x")
    return 0


async def _ls(call: Call) -> int:
    words = [word for word in call.argv[1:] if not word.startswith("-")] or ["."]
    hidden = any(word.startswith("-") and set(word) & set("aA") for word in call.argv[1:])
    status = 0
    for name in words:
        try:
            node = call.task.files.find(name, call.cwd)
        except OSError as wrong:
            await call.complain(f"cannot access '{name}': {wrong.strerror}")
            status = 2
            continue
        names = sorted(node.entries) if isinstance(node, Folder) else [name]
        await call.print("".join(f"{n}\n" for n in names if hidden or n[0] != "." or n == name))
    return status


async def _pwd(call: Call) -> int:
    await call.print(f"{call.cwd}\n")
    return 0


async def _env(call: Call) -> int:
    env, words = dict(call.env), list(call.argv[1:])
    if words[:1] == ["-i"]:
        env, words = {}, words[1:]
    while words and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    call = dataclasses.replace(call, argv=words, env=env)
    if words:
        return await execute(call)
    await call.print("".join(f"{name}={value}\n" for name, value in call.env.items()))
    return 0


async def _tty(call: Call) -> int:
    await call.print("/dev/pts/0\n" if call.task.terminal else "not a tty\n")
    return int(call.task.terminal is None)


async def _stty(call: Call) -> int:
    size = call.task.terminal
    if size is None:
        return await call.complain("standard input: Inappropriate ioctl for device")
    await call.print(f"{size.rows} {size.columns}\n")
    return 0


async def _uname(call: Call) -> int:
    root = call.task.root
    told = {"-n": root.hostname, "-r": root.guest.info.kernel, "-s": "Linux", "-m": "fake"}
    asked = call.argv[1:] or ["-s"]
    if not set(asked) <= set(told):
        return await call.complain("the fake knows -n, -r, -s and -m")
    await call.print(" ".join(told[word] for word in asked) + "\n")
    return 0


async def _hostname(call: Call) -> int:
    await call.print(f"{call.task.root.hostname}\n")
    return 0


async def _test(call: Call) -> int:
    words = list(call.argv[1:])
    if call.argv[0] == "[" and (not words or words.pop() != "]"):
        await call.complain("missing `]'")
        return 2
    wanted = True
    while words[:1] == ["!"] and len(words) > 1:
        wanted, words = not wanted, words[1:]
    try:
        return int(_holds(words, call) != wanted)
    except ValueError:
        await call.complain(f"{' '.join(words)}: an expression the fake does not know")
        return 2


def _holds(words: list[str], call: Call) -> bool:
    match words:
        case []:
            return False
        case [word]:
            return word != ""
        case [operator, word]:
            return _unary(operator, word, call)
        case [left, "=" | "==", right]:
            return left == right
        case [left, "!=", right]:
            return left != right
        case [left, operator, right] if operator in _COMPARISONS:
            return _COMPARISONS[operator](int(left), int(right))
    raise ValueError(words)


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "-eq": int.__eq__,
    "-ne": int.__ne__,
    "-lt": int.__lt__,
    "-le": int.__le__,
    "-gt": int.__gt__,
    "-ge": int.__ge__,
}


def _unary(operator: str, word: str, call: Call) -> bool:
    if operator in {"-n", "-z"}:
        return (word != "") == (operator == "-n")
    if operator == "-t":
        return call.task.terminal is not None
    if operator in {"-L", "-h"}:
        return isinstance(call.task.files.lookup(word, call.cwd, follow=False), Link)
    if operator not in _NODE_TESTS:
        raise ValueError(operator)
    node = call.task.files.lookup(word, call.cwd)
    return node is not None and _NODE_TESTS[operator](node)


_NODE_TESTS: dict[str, Callable[[Node], bool]] = {
    "-d": lambda node: isinstance(node, Folder),
    "-e": lambda _: True,
    "-f": lambda node: not isinstance(node, Folder),
    "-r": lambda _: True,
    "-s": lambda node: isinstance(node, File) and len(node.content) > 0,
    "-w": lambda _: True,
    "-x": lambda node: bool(node.mode & 0o111),
}


async def _fake(call: Call) -> int:
    """Go wrong on purpose: what only happens to a real guest on a bad day."""
    from cloche.errors import GuestLost

    guest = call.task.root.guest
    match call.argv[1:]:
        case ["lose"]:
            guest.lose(GuestLost(f"{guest.info.hostname}: the guest ended, as `fake lose` asked"))
        case ["silent"]:
            guest.silent = True
        case ["oom"]:
            call.task.root.oom_kills += 1
            call.task.deliver(signal.SIGKILL)
        case ["hang"]:
            call.task.traps |= {int(n): "" for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        case _:
            return await call.complain("usage: fake lose|silent|oom|hang")
    await asyncio.Event().wait()
    return 0


PROGRAMS: dict[str, Callable[[Call], Awaitable[int]]] = {
    ":": _true,
    "[": _test,
    "cat": _cat,
    "chmod": _chmod,
    "echo": _echo,
    "env": _env,
    "fake": _fake,
    "false": _false,
    "head": _head,
    "hostname": _hostname,
    "ln": _ln,
    "ls": _ls,
    "mkdir": _mkdir,
    "printf": _printf,
    "pwd": _pwd,
    "rm": _rm,
    "sleep": _sleep,
    "stty": _stty,
    "test": _test,
    "touch": _touch,
    "true": _true,
    "tty": _tty,
    "uname": _uname,
    "wc": _wc,
}
