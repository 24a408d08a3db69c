"""Starting one program in a job root: what happens between fork and exec.

Runs in the job's init, whose root, namespaces and cgroup the child inherits. The child reports a failure to
start through a pipe that a successful exec closes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import struct
import termios
from dataclasses import dataclass

NOT_FOUND = 127
NOT_EXECUTABLE = 126
DEFAULT_USER = "runner"
_OOM_SCORE = b"500"  # a step goes before anything else when memory runs out; GitHub's runner sets the same
_MAX_ERROR = 4096


@dataclass(frozen=True)
class User:
    """A user as the job image's own files describe it."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class UserTable:
    """The job image's users, read again when its files change.

    Read by hand: the C library would load the job image's name service modules into the agent.
    """

    def __init__(self, folder: str = "/etc", *, single: bool = False) -> None:
        """``single``: the namespace maps one user only, so everybody is that one, its root."""
        self._single = single
        self._files = (f"{folder}/passwd", f"{folder}/group")
        self._stamp: tuple[int, ...] = ()
        self._users: dict[str, tuple[int, int]] = {}
        self._groups: list[tuple[int, frozenset[str]]] = []

    def find(self, name: str | None) -> User:
        """A user by name or number; ``None`` is ``runner`` where there is one, else root. KeyError if unknown."""
        if self._single:
            return User(0, 0, ())
        self._refresh()
        if name is None:
            name = DEFAULT_USER if DEFAULT_USER in self._users else "0"
        if name in self._users:
            uid, gid = self._users[name]
        elif name.isdecimal():
            uid = int(name)
            known = ((n, g) for n, (u, g) in self._users.items() if u == uid)
            name, gid = next(known, ("", uid))
        else:
            raise KeyError(f"the job image has no user {name!r}")
        member_of = (group for group, members in self._groups if name in members)
        return User(uid, gid, tuple(sorted({gid, *member_of})))

    def _refresh(self) -> None:
        stamp = tuple(_modified(path) for path in self._files)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        passwd, group = (list(_entries(path)) for path in self._files)
        self._users = {e[0]: (int(e[2]), int(e[3])) for e in passwd if _numeric(e, 2, 3)}
        self._groups = [(int(e[2]), frozenset(e[3].split(","))) for e in group if _numeric(e, 2)]


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _entries(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n").split(":") for line in file if line.count(":") >= 3]  # noqa: PLR2004 - passwd(5), group(5)
    except OSError:
        return []


def _numeric(entry: list[str], *columns: int) -> bool:
    return all(len(entry) > column and entry[column].isdecimal() for column in columns)


@dataclass(frozen=True)
class Program:
    """What the child becomes; see ``ExecSpec`` on the host's side."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    user: User
    files: list[tuple[str, bytes]]
    terminal: bool


def start(program: Program, stdin: int, output: int, cgroup: int | None) -> tuple[int, str | None]:
    """Fork and exec. Returns the process id and, when it could not start, why.

    ``cgroup`` is an open ``cgroup.procs`` that the child writes itself into before it is anything else, so that
    none of its descendants can escape being counted and killed with it.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(program, stdin, output, cgroup, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        error = pipe.read(_MAX_ERROR).decode(errors="replace")
    return pid, error or None


def _become(program: Program, stdin: int, output: int, cgroup: int | None, errors: int) -> None:
    code = NOT_EXECUTABLE
    try:
        _prepare(program, stdin, output, cgroup)
        for path, content in program.files:
            _write(path, content)
        os.chdir(program.cwd)
        os.execvpe(program.argv[0], program.argv, program.env)  # noqa: S606 - the very point
    except FileNotFoundError as error:
        code = NOT_FOUND
        _report(errors, f"{error.filename or program.argv[0]}: {error.strerror}")
    except BaseException as error:  # noqa: BLE001 - whatever it is, a child must never return into the agent's loop
        _report(errors, f"{program.argv[0]}: {error}")
    os._exit(code)


def _report(errors: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(errors, text.encode()[:_MAX_ERROR])


def _prepare(program: Program, stdin: int, output: int, cgroup: int | None) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    if cgroup is not None:
        os.write(cgroup, b"0")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
        score.write(_OOM_SCORE)
    if program.terminal:
        fcntl.ioctl(output, termios.TIOCSCTTY, 0)
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    become_user(program.user)


def become_user(user: User) -> None:
    """Drop from root to ``user``."""
    os.umask(0o022)
    if user.uid == 0:
        return
    os.setgroups(user.groups)
    os.setgid(user.gid)
    os.setuid(user.uid)


def _write(path: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) or 0 :]


def read_collected(path: str, limit: int) -> bytes | None:
    """The first ``limit`` + 1 bytes of a regular file, ``None`` for anything else.

    Opened without following a link or waiting on a FIFO: the program may have left either in the file's place.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size == 0:
            return b""
        return _read_up_to(file.fileno(), limit + 1)


def _read_up_to(descriptor: int, limit: int) -> bytes:
    parts = []
    while limit > 0:
        part = os.read(descriptor, min(limit, 1 << 20))
        if not part:
            break
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def set_terminal_size(terminal: int, rows: int, columns: int) -> None:
    """tty_ioctl(4)'s TIOCSWINSZ."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
