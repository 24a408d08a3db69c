"""A job's init: process 1 of the job's namespaces. It starts programs, reaps, and reports to the agent.

Forked from the agent, so every module it needs is loaded before the job's root replaces the agent's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

from cloche.guest import builtins, processes, protocol, spawn
from cloche.guest.link import Link, LinkClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import NoReturn

_SIGNAL_CODE = 128


class _Running:
    def __init__(self, number: int, process: subprocess.Popen[bytes] | None, collect: list[str]) -> None:
        self.number = number
        self.process = process
        self.collect = collect


class Init:
    """The loop: requests from the agent on ``link``, ended children from the kernel."""

    def __init__(self, agent: socket.socket, cgroup: int | None, *, single_user: bool) -> None:
        """``cgroup`` is a descriptor of the job's cgroup folder, ``None`` where there are no cgroups."""
        self._link = Link(agent.fileno(), agent)
        self._spawner = spawn.Spawner(cgroup)
        self._running: dict[int, _Running] = {}
        self._users = spawn.UserTable(single=single_user)
        self._null = os.open("/dev/null", os.O_RDWR)

    def run(self) -> NoReturn:
        """Serve until the agent goes; then end, and with it every process of the job."""
        wake, notify = os.pipe()
        for descriptor in (wake, notify):
            os.set_blocking(descriptor, False)
        restore_signals()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        self._link.send({"t": "ready"})
        while True:
            want = select.POLLIN | (select.POLLOUT if self._link.wants_write else 0)
            poll.register(self._link.fileno, want)
            for descriptor, events in poll.poll():
                if descriptor == wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                    self._reap()
                else:
                    self._serve(events)

    def _serve(self, events: int) -> None:
        if events & select.POLLOUT:
            self._link.flush()
        if events & ~select.POLLOUT:
            for header, payload in self._link.receive():
                self._handle(header, payload)

    def _handle(self, header: protocol.Header, payload: bytes) -> None:
        if header["t"] == "assign":
            self._assign(header, payload)
        elif header["t"] == "signal":
            self._signal(protocol.whole(header, "s"), protocol.whole(header, "n"))
        else:
            self._exec(header, payload)

    def _assign(self, header: protocol.Header, payload: bytes) -> None:
        """The job gets its names and its first files.

        They are written here rather than by a process of their own: under emulation a fork of ours costs as much
        as a step.
        """
        try:
            self._take_names(header)
            user = self._users.find(None)
            for folder in header.get("folders") or ():  # type: ignore[attr-defined] # the host's own list
                spawn.make_folders(folder, user)
            spawn.write_files(_files(header, payload), user)
        except (OSError, ValueError) as error:
            self._link.send({"t": "assigned", "error": f"the job's root could not be made ready: {error}"})
        else:
            self._link.send({"t": "assigned"})

    def _take_names(self, header: protocol.Header) -> None:
        """An image's own files may be links elsewhere; they are replaced, not followed. OSError."""
        hostname = str(header["hostname"])
        socket.sethostname(hostname)
        _replace("/etc/hostname", f"{hostname}\n")
        _replace("/etc/hosts", f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n")
        _replace("/etc/machine-id", f"{header['machine_id']}\n")

    def _exec(self, header: protocol.Header, payload: bytes) -> None:
        number = protocol.whole(header, "s")
        terminal = header.get("tty")
        if isinstance(terminal, list):
            try:
                stdin = output = self._open_terminal(number, terminal)
            except OSError as error:
                self._refuse(number, spawn.NOT_EXECUTABLE, f"there is no terminal to be had: {error}")
                return
        else:
            output = self._link.fds.popleft()
            stdin = (
                self._link.fds.popleft() if header.get("stdin") or "inbox" in header else os.dup(self._null)
            )
        try:
            self._start(header, payload, stdin, output)
        finally:
            for descriptor in {stdin, output}:
                os.close(descriptor)

    def _open_terminal(self, number: int, size: list[int]) -> int:
        master, slave = os.openpty()
        spawn.set_terminal_size(slave, *size)
        self._link.send({"t": "terminal", "s": number}, fds=[master])
        return slave

    def _start(self, header: protocol.Header, payload: bytes, stdin: int, output: int) -> None:
        number = protocol.whole(header, "s")
        collect = header.get("collect")
        paths = [str(path) for path in collect] if isinstance(collect, list) else []
        try:
            if header.get("builtin"):
                user = self._user(header)
                builtins.prepare(header, user)
                pid = self._spawner.run(lambda: builtins.run(header), user, number, stdin, output)
                self._running[pid] = _Running(number, None, paths)
            else:
                process = self._spawner.start(self._program(header, payload), number, stdin, output)
                self._running[process.pid] = _Running(number, process, paths)
        except spawn.StartError as error:
            self._refuse(number, error.code, str(error))

    def _refuse(self, number: int, code: int, error: str) -> None:
        self._link.send({"t": "exit", "s": number, "code": code, "error": error})

    def _signal(self, number: int, signal_number: int) -> None:
        """To the program and its descendants, as far as they can be told without control groups.

        With them the agent does it better, except for a program that was just being started.
        """
        for pid in [pid for pid, running in self._running.items() if running.number == number]:
            processes.signal_tree(pid, signal_number)

    def _program(self, header: protocol.Header, payload: bytes) -> spawn.Program:
        return spawn.Program(
            argv=header["argv"],  # type: ignore[arg-type] # the host's own list of strings
            env=header["env"],  # type: ignore[arg-type] # the host's own mapping of strings
            cwd=str(header["cwd"]),
            user=self._user(header),
            files=_files(header, payload),
            terminal=bool(header.get("tty")),
        )

    def _user(self, header: protocol.Header) -> spawn.User:
        user = header.get("user")
        try:
            return self._users.find(None if user is None else str(user))
        except KeyError as error:
            raise spawn.StartError(spawn.NOT_EXECUTABLE, error.args[0]) from None

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            running = self._running.pop(pid, None)
            if running is not None:  # else an orphan of some program: reaping it was all there is to do
                self._report(running, status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024)

    def _report(self, running: _Running, status: int, user: float, system: float, rss: int) -> None:
        empty = self._collect(running)
        code = os.waitstatus_to_exitcode(status)
        if running.process is not None:
            running.process.returncode = code
        killed = -code if code < 0 else None
        self._link.send(
            {
                "t": "exit",
                "s": running.number,
                "code": _SIGNAL_CODE + killed if killed else code,
                "signal": killed,
                "utime": user,
                "stime": system,
                "rss": rss,
                "empty": empty,
            }
        )

    def _collect(self, running: _Running) -> list[int]:
        """Send the files asked for; which of them are there and empty goes with the exit, as most are."""
        empty = []
        for index, path in enumerate(running.collect):
            content = spawn.read_collected(path, protocol.MAX_COLLECTED)
            if content:
                cut = len(content) > protocol.MAX_COLLECTED
                header: protocol.Header = {"t": "file", "s": running.number, "file": index, "cut": cut}
                self._link.send(header, content[: protocol.MAX_COLLECTED])
            elif content is not None:
                empty.append(index)
        return empty


def _files(header: protocol.Header, payload: bytes) -> list[tuple[str, bytes]]:
    """The paths of a message and their contents, which are its payload one after the other."""
    files, offset = [], 0
    for path, size in header.get("files") or ():  # type: ignore[attr-defined] # the host's own list
        files.append((path, payload[offset : offset + size]))
        offset += size
    return files


def restore_signals() -> None:
    """Ignore nothing that a program would inherit, whoever started us; Popen sees to what Python ignores."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _replace(path: str, text: str) -> None:
    """Write a file anew; an image without ``/etc`` goes without."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        open(path, "w", encoding="utf-8") as file,
    ):
        file.write(text)


def serve(agent: socket.socket, cgroup: int | None, *, single_user: bool) -> NoReturn:
    """Run the init; never returns into what it was forked from."""
    try:
        Init(agent, cgroup, single_user=single_user).run()
    except LinkClosed:
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - said here, or nowhere
        os.write(2, f"a job's init failed: {error!r}\n".encode(errors="replace"))
    finally:
        os._exit(1)
