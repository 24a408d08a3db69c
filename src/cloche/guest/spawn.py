"""Starting one program in a job root: its user, its files, its control group.

Runs in the job's init, whose root and namespaces the program inherits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import struct
import subprocess
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

NOT_FOUND = 127
NOT_EXECUTABLE = 126
DEFAULT_USER = "runner"
_PROGRAM_SCORE = (
    b"500"  # a step goes before anything else when memory runs out; GitHub's runner sets the same
)
_OWN_SCORE = b"-1000"
_MAX_ID = 2**32 - 2  # the highest means "no change" to the system calls
_MAX_NAME = 256
_UNFIT = (OSError, ValueError, TypeError)  # the last two: a NUL in an argument, what is no text


class User:
    """A user as the job image's own files describe it."""

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...]) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.uid, self.gid, self.groups))

    def __repr__(self) -> str:
        return f"User({self.uid}, {self.gid}, {self.groups})"


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
        self._refresh()
        if name is None:
            name = DEFAULT_USER if DEFAULT_USER in self._users else "0"
        if name in self._users:
            uid, gid = self._users[name]
        elif _is_id(name):
            uid = int(name)
            known = ((n, g) for n, (u, g) in self._users.items() if u == uid)
            name, gid = next(known, (name, uid))
        else:
            raise KeyError(f"the job image has no user {name[:_MAX_NAME]!r}")
        if self._single:
            return User(0, 0, ())
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
    return all(len(entry) > column and _is_id(entry[column]) for column in columns)


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= len(str(_MAX_ID)) and int(text) <= _MAX_ID


class Program:
    """What the child becomes; see ``ExecSpec`` on the host's side."""

    def __init__(
        self,
        argv: list[str],
        *,
        env: dict[str, str],
        cwd: str,
        user: User,
        files: list[tuple[str, bytes]],
        terminal: bool,
    ) -> None:
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.user = user
        self.files = files
        self.terminal = terminal


class Spawner:
    """Starts programs for a job's init.

    A Python function between fork and exec would be simpler to read, but under emulation the pages it touches
    cost more than everything else here; so what a child must inherit (control group, readiness to be killed
    when memory runs out) is set on the init itself, and taken back when the child is there.
    """

    def __init__(self, cgroup: int | None) -> None:
        """``cgroup`` is a descriptor of the job's control group, ``None`` where there are none."""
        self._cgroup = cgroup
        self._home = None if cgroup is None else os.open("init/cgroup.procs", os.O_WRONLY, dir_fd=cgroup)
        self._score = _hold_score()

    def start(self, program: Program, number: int, stdin: int, output: int) -> subprocess.Popen[bytes]:
        """Write the program's files, then fork and exec it in a control group of its own, ``s<number>``.

        The caller keeps the returned object until it has reaped the process, and tells it the return code.
        Raises StartError.
        """
        if not program.argv:
            raise StartError(NOT_FOUND, "there is no program to start")
        try:
            write_files(program.files, program.user)
        except _UNFIT as error:
            raise StartError(NOT_EXECUTABLE, _explain(error, "a file of the step")) from error
        try:
            with self._in_group(number), self._killable():
                return _popen(program, stdin, output)
        except _UNFIT as error:
            missing = isinstance(error, FileNotFoundError) and error.filename != program.cwd
            code = NOT_FOUND if missing else NOT_EXECUTABLE
            raise StartError(code, _explain(error, program.argv[0])) from error

    def run(self, work: Callable[[], int], user: User, number: int, stdin: int, output: int) -> int:
        """Like ``start`` for a function of our own: the process id of a fork that does ``work`` as ``user``.

        What ``work`` returns is its exit code. Raises StartError.
        """
        try:
            with self._in_group(number), self._killable():
                pid = os.fork()
                if pid == 0:
                    _work(work, user, stdin, output)
        except OSError as error:
            raise StartError(NOT_EXECUTABLE, _explain(error, "a fork of the job's init")) from error
        return pid

    @contextlib.contextmanager
    def _in_group(self, number: int) -> Iterator[None]:
        """Be in the program's control group while it is forked: it is born there, and nothing of it escapes."""
        if self._cgroup is None or self._home is None:
            yield
            return
        os.mkdir(f"s{number}", dir_fd=self._cgroup)
        self._leave_room(self._cgroup, number)
        group = os.open(f"s{number}/cgroup.procs", os.O_WRONLY, dir_fd=self._cgroup)
        try:
            os.write(group, b"0")
            yield
        finally:
            os.close(group)
            os.write(self._home, b"0")

    @staticmethod
    def _leave_room(cgroup: int, number: int) -> None:
        """Let no program have all the processes that its job may have: the next one needs some too."""
        most = _read_at("pids.max", cgroup)
        if most.isdigit():
            _write_at(f"s{number}/pids.max", cgroup, str(int(most) * 7 // 8))

    @contextlib.contextmanager
    def _killable(self) -> Iterator[None]:
        """Be a candidate when memory runs out, as the program is to be; the init itself is none."""
        if self._score is None:
            yield
            return
        os.write(self._score, _PROGRAM_SCORE)
        try:
            yield
        finally:
            os.write(self._score, _OWN_SCORE)


def _read_at(path: str, folder: int) -> str:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(descriptor, 64).decode("ascii").strip()
    finally:
        os.close(descriptor)


def _write_at(path: str, folder: int, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _hold_score() -> int | None:
    """Take the init out of those that are killed when memory runs out: a descriptor to change that by.

    ``None`` where the init is not root outside; then it is the first to go, and its programs with it.
    """
    try:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return None
    try:
        os.write(score, _OWN_SCORE)
    except OSError:
        with contextlib.suppress(OSError):
            os.write(score, _PROGRAM_SCORE)
        os.close(score)
        return None
    return score


def _popen(program: Program, stdin: int, output: int) -> subprocess.Popen[bytes]:
    user = program.user
    as_root = user.uid == 0
    return subprocess.Popen(
        program.argv,
        env=program.env,
        cwd=program.cwd,
        stdin=stdin,
        stdout=output,
        stderr=output,
        close_fds=False,  # the agent's own descriptors are closed on exec, each by itself
        start_new_session=True,
        user=None if as_root else user.uid,
        group=None if as_root else user.gid,
        extra_groups=None if as_root else user.groups,
        preexec_fn=_take_terminal if program.terminal else None,  # noqa: PLW1509 - one thread, and rare
    )


def _work(work: Callable[[], int], user: User, stdin: int, output: int) -> NoReturn:
    code = NOT_EXECUTABLE
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        become_user(user)
        code = work()
    finally:
        os._exit(code)  # a fork must never return into the init's loop


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _explain(error: Exception, otherwise: str) -> str:
    if not isinstance(error, OSError):
        return f"{otherwise}: {error}"
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    return f"{name or otherwise}: {error.strerror}"


class StartError(Exception):
    """A program could not be started: the code a shell would give, and why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def _as_user(user: User) -> Iterator[None]:
    """Act on files as ``user`` would, so that what it may not write is not written for it either."""
    if user.uid == 0:
        yield
        return
    own = os.getgroups()
    os.setgroups(user.groups)
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(own)


def become_user(user: User) -> None:
    """Drop from root to ``user``."""
    os.umask(0o022)
    if user.uid == 0:
        return
    os.setgroups(user.groups)
    os.setgid(user.gid)
    os.setuid(user.uid)


def write_files(files: list[tuple[str, bytes]], user: User) -> None:
    """Write whole files as ``user``, making their folders. OSError, ValueError."""
    for folder in {os.path.dirname(path) for path, _ in files}:
        make_folders(folder, user)
    with _as_user(user):
        for path, content in files:
            _write(path, content)


def make_folders(path: str, user: User) -> None:
    """Make a folder and what is missing above it, owned by ``user`` wherever it is."""
    path = os.path.join("/", path)
    if os.path.isdir(path):
        return
    make_folders(os.path.dirname(path), user)
    os.mkdir(path, 0o755)
    os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _write(path: str, content: bytes) -> None:
    # Not blocking: an earlier program may have left a FIFO in the file's place.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def read_collected(path: str, limit: int) -> bytes | None:
    """The first ``limit`` + 1 bytes of a regular file, ``None`` for anything else.

    Opened without following a link or waiting on a FIFO: the program may have left either in the file's place.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return _read_up_to(descriptor, limit + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)


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
