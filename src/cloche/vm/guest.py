"""A guest as the host sees it: the port that every provider's VM answers to.

``Guest`` speaks for the agent; ``JobRoot`` for one job's private root inside the guest; ``Process`` for one
program running there. Everything that arrives through them was said by a hostile guest: it is bounded in size
and time here, and callers treat its content as untrusted.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from cloche.errors import GuestError

MAX_COLLECTED = 4 * 1024 * 1024
"""Bytes of one collected file that the host takes at most; what is longer comes back ``truncated``."""

MAX_FIRST_FILES = 256 * 1024
"""Bytes of the files that a job root begins with; what is larger is better ``put`` there."""


@record
class GuestInfo:
    """What the agent said of its guest in the handshake.

    ``memory`` is bytes. ``env`` is what the job image's own configuration has its programs find (from the host).
    """

    boot_id: str
    kernel: str
    hostname: str
    cpus: int
    memory: int
    agent: str
    env: Mapping[str, str] = field(default_factory=dict)


@record
class Inspection:
    """What the agent found in its guest: who it is, and what is there, by kind, as lines of text.

    ``clock`` is seconds since the epoch, ``entropy`` some bytes of the guest's random numbers. The kinds are
    ``jobs`` (open roots), ``processes``, ``mounts``, ``files`` (of job roots), ``environment`` (of the agent,
    values as digests), ``sockets`` and ``interfaces``. Two guests in which nothing ever ran, of one template, have
    the same ``state`` and nothing else in common.
    """

    boot_id: str
    hostname: str
    clock: float
    entropy: bytes
    state: Mapping[str, tuple[str, ...]]


@record
class JobRootSpec:
    """A job's root to be: a fresh overlay over the job image, namespaces of its own, limits.

    Without a ``hostname`` it has the guest's own, the VM's id. ``memory`` (bytes) and ``pids`` bound the job's
    cgroup where the guest has cgroups; ``None`` leaves the provider's default. ``folders`` and ``files`` (mode
    0644, parents made; MAX_FIRST_FILES bytes in all) are there from the start and belong to the default user.
    """

    name: str
    hostname: str | None = None
    memory: int | None = None
    pids: int | None = None
    folders: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@record
class TtySize:
    """A terminal's size in characters."""

    rows: int
    columns: int


@record
class ExecSpec:
    """One program to run in a job root.

    ``files`` are written (mode 0644, owned by the user, parents made) before the program starts; ``collect``
    names files to hand back when it ends. ``user`` is a name or number in the job image; ``None`` is the
    job's default user. With ``tty`` the program gets a terminal; ``stdin`` false gives it an empty one.
    ``umask`` is the process's. ``env`` is complete: nothing is inherited.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str | None = None
    stdin: bool = False
    tty: TtySize | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    collect: Sequence[str] = ()


@record
class CollectedFile:
    """A file handed back when a program ended; ``truncated`` when it was longer than MAX_COLLECTED."""

    content: bytes
    truncated: bool = False


@record
class ExitStatus:
    """How a program ended.

    ``code`` is the exit code, or 128 plus the signal's number as a shell says it; ``signal`` is that signal.
    ``error`` is set when the program could not be started (missing, not executable): then ``code`` is 127 or
    126. ``oom_kills`` counts processes of the job the guest's kernel killed for memory meanwhile. Times are
    seconds of CPU, ``max_rss`` bytes.
    """

    code: int
    signal: int | None = None
    error: str | None = None
    oom_kills: int = 0
    boot_id: str = ""
    user_time: float = 0.0
    system_time: float = 0.0
    max_rss: int = 0
    collected: Mapping[str, CollectedFile] = field(default_factory=dict)


class Process(Protocol):
    """A program running in a job root. Not awaiting ``wait`` is fine; closing the job root ends it."""

    def output(self) -> AsyncIterator[bytes]:
        """Standard output and error, merged in the order written, as it happens, in chunks of at most 64 KiB.

        Slow reading slows the program down (flow control); nothing is dropped. Ends when the program has
        ended and its own output is drained; a background process it left behind does not hold it open.
        """

    async def wait(self) -> ExitStatus:
        """The exit status; drain ``output`` first or at the same time. GuestLost if the guest dies."""

    async def write(self, data: bytes) -> None:
        """Write to standard input (``stdin=True`` or a tty), waiting while the program does not read."""

    async def close_stdin(self) -> None:
        """End of standard input."""

    async def signal(self, number: int) -> None:
        """Send a signal to the program and all its descendants."""

    async def resize(self, size: TtySize) -> None:
        """Tell the terminal its new size."""


class JobRoot(Protocol):
    """One job's private root. An async context manager: leaving it ends every process in it."""

    @property
    def name(self) -> str:
        """What the guest calls it, for ``reopen_job``."""

    async def __aenter__(self) -> Self:
        """The root is ready."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process of the job and drop its root."""

    async def exec(self, spec: ExecSpec) -> Process:
        """Start a program. A program that cannot start is an ExitStatus with ``error``, not an exception."""

    async def put(self, path: str, archive: AsyncIterator[bytes], *, user: str | None = None) -> None:
        """Unpack an uncompressed tar stream below ``path`` (made if missing), files owned by ``user``.

        GuestError if the guest could not (disk full, read-only).
        """

    def get(self, path: str) -> AsyncIterator[bytes]:
        """The file or folder at ``path`` as an uncompressed tar stream. GuestError if it is not there."""

    async def hash_files(self, base: str, patterns: Sequence[str]) -> str:
        """GitHub's ``hashFiles``: one SHA-256 over the SHA-256 of each match below ``base``; empty if none."""


class Guest(Protocol):
    """The agent's client."""

    @property
    def info(self) -> GuestInfo:
        """What the agent said of its guest."""

    async def open_job(self, spec: JobRootSpec) -> JobRoot:
        """Make a job root; use as ``async with await guest.open_job(spec) as root``."""

    def reopen_job(self, name: str) -> JobRoot:
        """Return a root that was open when the guest was kept as it was, by its ``name`` then.

        Leaving it closes it, as the one that ``open_job`` made.
        """

    async def ping(self) -> float:
        """Round-trip in seconds; GuestTimeout when there is no answer within the health deadline."""

    async def inspect(self) -> Inspection:
        """What is in the guest, as its agent sees it; nothing is started for it."""

    async def lost(self) -> GuestError:
        """Wait until the guest is gone, or its channel; why."""
