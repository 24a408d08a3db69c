"""A private place to run the real command line in, and a look at what a run left behind.

Everything a run of a place makes on the host carries the place's path: in its environment, on its command line, in
its mounts, in its open files. So whatever carries it afterwards was left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Self

from cloche.config import data_dir
from cloche.errors import ImageError
from cloche.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import IO

Event = dict[str, Any]

CLOCHE = str(Path(sys.executable).with_name("cloche"))
DEADLINE = 100.0
"""Seconds for what takes a few, on a machine that may be busy; the first run may also make a template."""
_SAMPLE = 0.02
_POLL = 0.02
_MIB = 1024 * 1024


def beside_images(name: str) -> Path:
    """Where what has links to this machine's images can be kept: on their file system, and out of their store."""
    return data_dir().with_name("cloche-tests") / name


def lacking(provider: str) -> str | None:
    """What this machine lacks for a provider; ``None`` if it has all."""
    if provider == "qemu" and shutil.which("qemu-system-x86_64") is None:
        return "QEMU is not installed"
    images = ImageStore(data_dir())
    try:
        if provider in {"sandbox", "qemu"}:
            images.resolve("default", "job")
        if provider == "qemu":
            images.resolve("system", "system")
    except ImageError as error:
        return f"{error}; {error.hint} makes it"
    return None


@dataclass(frozen=True)
class Ended:
    """How a command ended. ``peak`` is the most memory its process had, in bytes, as far as it was seen."""

    code: int
    stdout: str
    stderr: str
    events: list[Event] = field(default_factory=list)
    peak: int = 0

    def of(self, kind: str, **fields: object) -> list[Event]:
        """The events of a kind whose fields are these."""
        return [event for event in self.events if _fits(event, kind, fields)]

    def one(self, kind: str, **fields: object) -> Event:
        """The only event of a kind whose fields are these."""
        (event,) = self.of(kind, **fields)
        return event

    def output(self, **fields: object) -> str:
        """What steps wrote."""
        return "".join(event["text"] for event in self.of("step.output", **fields))

    @property
    def conclusion(self) -> str:
        """The run's."""
        return str(self.one("run.finished")["conclusion"])

    @property
    def steps(self) -> dict[str, str]:
        """The conclusions of steps, by name."""
        return {event["name"]: event["conclusion"] for event in self.of("step.finished")}

    @property
    def messages(self) -> list[str]:
        """What annotations and notices say."""
        return [e["message"] for e in self.events if e["type"] in {"step.annotation", "run.notice"}]


def _fits(event: Event, kind: str, fields: dict[str, object]) -> bool:
    return event["type"] == kind and all(event.get(name) == value for name, value in fields.items())


class Running:
    """A command under way, in a process group of its own as a terminal would give it.

    A context manager: leaving it kills what still runs.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, keep_output: bool) -> None:
        self.process = process
        self._keep_output = keep_output
        self._news: Queue[Event | None] = Queue()
        self._events: list[Event] = []
        self._lines: list[str] = []
        self._stderr = bytearray()
        self._peak = 0
        self.written = 0
        """Characters that steps wrote, so far."""
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read_stdout, self._read_stderr, self._sample)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        self._join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read_stdout(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._take(line.decode())
                if self._enough.is_set():
                    self.process.stdout.close()
                    break
        self._news.put(None)

    def _take(self, line: str) -> None:
        event: Event | None = None
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            event = found if isinstance(found, dict) and "type" in found else None
        if event is not None:
            self._news.put(event)
            self.written += len(event.get("text", ""))
        if self._keep_output or event is None or event["type"] != "step.output":
            self._lines.append(line)
            if event is not None:
                self._events.append(event)

    def close_stdout_after_a_line(self) -> None:
        """Be a reader that has seen enough."""
        self._enough.set()

    @property
    def stderr(self) -> str:
        """What the command has said on standard error so far."""
        return self._stderr.decode(errors="replace")

    def _read_stderr(self) -> None:
        if self.process.stderr is not None:
            for line in self.process.stderr:
                self._stderr += line

    def _sample(self) -> None:
        path = Path(f"/proc/{self.process.pid}/status")
        while self.process.returncode is None:
            with contextlib.suppress(OSError, StopIteration, ValueError):
                line = next(line for line in path.read_text().splitlines() if line.startswith("VmHWM:"))
                self._peak = max(self._peak, int(line.split()[1]) * 1024)
            time.sleep(_SAMPLE)

    def wait_for(self, kind: str, *, within: float = DEADLINE, **fields: object) -> Event:
        """The next event of a kind whose fields are these; ``text`` only has to be in what a step wrote."""
        text = str(fields.pop("text", ""))
        deadline = time.monotonic() + within
        while True:
            try:
                event = self._news.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                raise AssertionError(f"no {kind} within {within:g} s; so far:\n{self._so_far()}") from None
            if event is None:
                raise AssertionError(f"ended without {kind} {fields}:\n{self._so_far()}")
            if _fits(event, kind, fields) and text in str(event.get("text", "")):
                return event

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE)

    def _so_far(self) -> str:
        return "".join([*self._lines[-40:], self.stderr[-4000:]])

    def signal(self, number: int) -> None:
        """Signal the process group, as a terminal does with Ctrl-C."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End the command's own process with SIGKILL, and nothing else."""
        self.process.send_signal(signal.SIGKILL)

    def end(self, within: float = DEADLINE) -> Ended:
        """Wait until the command has ended and everything it said was read."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {within:g} s; so far:\n{self._so_far()}") from None
        self._join()
        return Ended(code, "".join(self._lines), self.stderr, list(self._events), self._peak)


class Place:
    """A repository, and folders of its own for what a run keeps on the host; images are this machine's."""

    def __init__(self, folder: Path, provider: str = "fake") -> None:
        self.folder = folder
        self.provider = provider
        self.repository = folder / "repository"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "TMPDIR": str(folder / "tmp"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(data_dir().parent),
            "XDG_RUNTIME_DIR": str(folder / "runtime"),
            "XDG_STATE_HOME": str(folder / "state"),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        if "PYTHONPATH" in os.environ:  # another tree than the installed one is being tested
            self.env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        for name in ("home", "tmp", "config", "runtime", "state"):
            (folder / name).mkdir(parents=True)
        self._make_repository()

    def _make_repository(self) -> None:
        self.write("README.md", "A repository.\n")
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Mona")
        self.git("config", "user.email", "mona@example.org")
        self.commit("one")

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        command = ["git", "-C", str(self.repository), *arguments]
        return subprocess.run(
            command, env=self.env, check=True, capture_output=True, text=True, timeout=DEADLINE
        ).stdout.strip()

    def commit(self, message: str) -> str:
        """Commit everything; the commit's id."""
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def write(self, name: str, content: str) -> Path:
        """Write a file of the repository."""
        path = self.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def workflow(self, text: str, name: str = "test.yml") -> None:
        """Write a workflow."""
        self.write(f".github/workflows/{name}", text)

    def steps(self, steps: str, *, job: str = "", name: str = "test.yml") -> None:
        """Write a workflow of one job; ``steps`` and ``job`` are flow or block YAML at the margin."""
        self.workflow(one_job(steps, job=job), name)

    def start(
        self,
        *arguments: str,
        keep_output: bool = True,
        stdout: int | IO[bytes] = subprocess.PIPE,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
    ) -> Running:
        """Start a command. ``run`` gets this place's provider, and its mark for what the steps start."""
        if arguments[0] == "run":
            arguments = ("run", "--vm", self.provider, "--env", f"PLACE={self.folder}", *arguments[1:])
        process = subprocess.Popen(
            [CLOCHE, *arguments],
            cwd=cwd or self.repository,
            env={**self.env, **(env or {})},
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if process.stdin is not None:
            with process.stdin as pipe:
                pipe.write(stdin.encode())
        return Running(process, keep_output=keep_output)

    def events(self, *arguments: str, **start: Any) -> Running:
        """Start ``cloche run --output jsonl``."""
        return self.start("run", "--output", "jsonl", *arguments, **start)

    def run(self, *arguments: str, within: float = DEADLINE, **start: Any) -> Ended:
        """Run a command to its end."""
        with self.start(*arguments, **start) as running:
            return running.end(within)

    # --- what is left

    def left(self) -> list[str]:
        """Everything on this host that carries this place's path and is no part of what it was given."""
        return [*self._files(), *traces(str(self.folder))]

    def _files(self) -> Iterator[str]:
        for top in ("tmp", "runtime", "state"):
            for path in sorted((self.folder / top).rglob("*")):
                if not path.is_dir() or path.name.startswith("vm-") or top == "tmp":
                    yield f"file {path}"

    def assert_clean(self, within: float = 2.0) -> None:
        """Nothing is left, or is gone within so many seconds: the kernel ends trees of processes in its own time."""
        left = settled(self.left, within)
        assert not left, "\n".join(left)

    def assert_no_process(self, within: float) -> None:
        """No process is left within so many seconds; files may be."""
        left = settled(lambda: traces(str(self.folder)), within)
        assert not left, "\n".join(left)

    def remove(self) -> None:
        """Remove the place itself, whatever modes its files have."""
        shutil.rmtree(self.folder, ignore_errors=True)


def one_job(steps: str, *, job: str = "", name: str = "Test") -> str:
    """Return a workflow of one job, ``job``."""
    lines = [f"name: {name}", "on: push", "jobs:", "  job:", "    runs-on: ubuntu-latest"]
    lines += [f"    {line}" for line in job.splitlines()]
    lines += ["    steps:", *(f"      {line}" for line in steps.strip("\n").splitlines())]
    return "\n".join(lines) + "\n"


def settled(look: Callable[[], list[str]], within: float) -> list[str]:
    """What ``look`` finds when it finds nothing, or when the time is up."""
    deadline = time.monotonic() + within
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return found


def traces(mark: str) -> list[str]:
    """Say which processes, mounts and sockets of this host carry ``mark``; this process does not count."""
    wanted = mark.encode()
    found = [
        f"process {pid}: {' '.join(command_line(pid))[:200]} ({', '.join(places)})"
        for pid in _processes()
        if (places := [place for place, text in _about(pid) if wanted in text])
    ]
    for path in ("/proc/self/mountinfo", "/proc/net/unix"):
        found += [f"{path}: {line}" for line in Path(path).read_text().splitlines() if mark in line]
    return found


def processes(mark: str, *words: str) -> list[int]:
    """The processes whose command line or environment carries ``mark`` and whose command line has all ``words``."""
    return [
        pid
        for pid in _processes()
        if mark.encode() in b"".join(_read(pid, name) for name in ("cmdline", "environ"))
        and all(any(word in part for part in command_line(pid)) for word in words)
    ]


def command_line(pid: int) -> list[str]:
    """A process's command line; empty when it has ended."""
    return _read(pid, "cmdline").decode(errors="replace").split("\0")


def _processes() -> list[int]:
    own = os.getpid()
    return [pid for path in Path("/proc").glob("[1-9]*") if (pid := int(path.name)) != own]


def _about(pid: int) -> Iterator[tuple[str, bytes]]:
    for name in ("cmdline", "environ", "mountinfo"):
        yield name, _read(pid, name)
    for name in ("cwd", "root", "exe"):
        yield name, _link(Path(f"/proc/{pid}/{name}"))
    with contextlib.suppress(OSError):
        yield "open files", b"\n".join(_link(path) for path in Path(f"/proc/{pid}/fd").iterdir())


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _link(path: Path) -> bytes:
    try:
        return os.fsencode(path.readlink())
    except OSError:
        return b""
