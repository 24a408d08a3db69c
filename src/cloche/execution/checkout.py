"""The repository at hand as one uncompressed tar stream: what ``actions/checkout`` gives the guest.

The stream holds the working tree as it is, tracked files and untracked ones that are not ignored, and a
``.git`` made fresh: the history that ``fetch-depth`` asks for, an index equal to HEAD, and nothing else of
the host's repository: no hooks, no configuration, no logs, no credentials.
Rules: https://github.com/actions/checkout.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import ClocheError
from cloche.execution.gitstate import git_command, git_environment
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator

PIECE = 1024 * 1024
"""Bytes of the stream that are in memory at a time, about."""

GIT_DEADLINE = 600.0
"""Seconds for one git process here: it may have to pack a long history."""

_BLOCK = 512
_CLONE_CONFIG = (
    "clone.defaultRemoteName=origin",
    "core.logAllRefUpdates=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.file.allow=always",
)


class CheckoutError(ClocheError):
    """The repository at hand cannot be sent to the guest; the step fails."""


@record
class CheckoutSpec:
    """What to send.

    ``depth`` is ``fetch-depth`` (0 for all history), ``submodules`` whether the files of submodules go along,
    ``include`` ignored files or folders to send all the same, relative to ``root``. ``remote`` is the address
    that the guest's ``origin`` gets.
    """

    root: Path
    remote: str
    depth: int = 1
    tags: bool = False
    submodules: bool = False
    include: tuple[str, ...] = ()


async def stream(spec: CheckoutSpec, sent: dict[str, str] | None = None) -> AsyncGenerator[bytes, None]:
    """Yield the tar stream, paths relative to the checkout's folder, in pieces of about PIECE bytes.

    ``sent`` grows by each file of the working tree: its name and its mark (see ``Mark``).

    Raises CheckoutError when git fails or a file cannot be read. Use it within ``contextlib.aclosing``:
    temporary files live until the iterator is closed.
    """
    import tempfile  # it brings compressors along, and few runs need it

    remove_stale()
    with tempfile.TemporaryDirectory(prefix=_prefix()) as folder:
        pieces = _pieces(await _plan(spec, Path(folder, "clone")), sent)
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece


def remove_stale() -> None:
    """Remove the temporary files of checkouts whose process is gone; a killed one could not."""
    import shutil
    import tempfile

    for path in Path(tempfile.gettempdir()).glob("cloche-checkout-*"):
        owner = re.match(r"cloche-checkout-(\d+)-(\d+)-", path.name)
        mine = path.lstat().st_uid == os.getuid()
        if owner and mine and _start_time(int(owner[1])) != owner[2]:
            shutil.rmtree(path, ignore_errors=True)


def _prefix() -> str:
    """Return a name that tells whose files these are; process ids return, but not with the same start."""
    return f"cloche-checkout-{os.getpid()}-{_start_time(os.getpid())}-"


def _start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""


async def _files(spec: CheckoutSpec) -> Iterable[_Entry]:
    """Return what ``_plan`` does, less ``.git``."""
    found = await _git(spec.root, "rev-parse", "--show-prefix", "HEAD", check=False)
    return await _listed(spec) if found.stdout else _walk(spec.root)


@record
class _Entry:
    """A file, link or folder: its name in the stream and its place on the host."""

    name: str
    path: Path


async def _plan(spec: CheckoutSpec, clone: Path) -> Iterable[_Entry]:
    """Return what to send, ``.git`` last; the copies that this needs are made below ``clone``."""
    found = await _git(spec.root, "rev-parse", "--show-prefix", "HEAD", check=False)
    if not found.stdout:
        return _walk(spec.root)
    if found.stdout[0] != _NEWLINE:  # a folder within a repository: its history is not this folder's
        return await _listed(spec)
    try:
        async with asyncio.TaskGroup() as group:
            files = group.create_task(_listed(spec))
            group.create_task(_make_clone(spec, clone, has_commit=found.returncode == 0))
    except BaseExceptionGroup as failures:  # not except*: before Python 3.11.4 it wraps what is raised in it
        raise failures.exceptions[0] from None
    return [*files.result(), *_walk(clone / ".git", ".git")]


_NEWLINE = ord("\n")


async def _listed(spec: CheckoutSpec) -> list[_Entry]:
    """Return tracked and not ignored files, and what ``include`` adds, each once."""
    entries = {entry.name: entry for entry in await _working_tree(spec.root, "", submodules=spec.submodules)}
    for wanted in spec.include:
        path = _within(spec.root, wanted)
        name = path.relative_to(spec.root.resolve()).as_posix()
        entries |= {
            entry.name: entry for entry in ([*_walk(path, name)] if path.is_dir() else [_Entry(name, path)])
        }
    return list(entries.values())


async def _working_tree(root: Path, prefix: str, *, submodules: bool) -> list[_Entry]:
    listed = await _git(root, "ls-files", "-z", "-co", "--exclude-standard", "--deduplicate")
    entries: list[_Entry] = []
    for name in map(os.fsdecode, listed.stdout.split(b"\0")[:-1]):
        path = root / name
        nested = name.endswith("/")  # a repository within this one that is no submodule
        if nested or (submodules and stat.S_ISDIR(_mode(path))):
            entries += await _working_tree(path, f"{prefix}{name.rstrip('/')}/", submodules=submodules)
        else:
            entries.append(_Entry(prefix + name, path))
    return entries


def _within(root: Path, wanted: str) -> Path:
    path = Path(os.path.normpath(root.resolve() / wanted))
    if not path.is_relative_to(root.resolve()):
        raise CheckoutError(f"cannot include {wanted!r}: it is outside the repository {root}")
    if not os.path.lexists(path):
        raise CheckoutError(f"cannot include {wanted!r}: it is not in {root}")
    return path


def _walk(folder: Path, name: str = "") -> Iterator[_Entry]:
    """Yield a folder and all below it, links as links, in order of name."""
    if name:
        yield _Entry(name, folder)
    for item in sorted(os.scandir(folder), key=lambda item: item.name):
        below = f"{name}/{item.name}" if name else item.name
        if item.is_dir(follow_symlinks=False):
            yield from _walk(Path(item.path), below)
        else:
            yield _Entry(below, Path(item.path))


async def _make_clone(spec: CheckoutSpec, target: Path, *, has_commit: bool) -> None:
    options = ["--quiet", "--no-checkout", "--no-local", "--template="]
    if spec.depth:
        options += [f"--depth={spec.depth}", "--single-branch"]
    if spec.depth and not spec.tags:
        options += ["--no-tags"]
    config = [part for item in _CLONE_CONFIG for part in ("-c", item)]
    await _git(spec.root, *config, "clone", *options, "--", str(spec.root), str(target))
    if has_commit:
        await _git(target, "read-tree", "HEAD")
    _rewrite_config(target / ".git", spec.remote)


def _rewrite_config(folder: Path, remote: str) -> None:
    """Keep what says how the repository is stored; the remote becomes the one that GitHub's checkout has."""
    path = folder / "config"
    kept = re.findall(r"^\[(?:core|extensions)\]\n(?:[\t ].*\n)*", path.read_text("utf-8"), re.MULTILINE)
    origin = f'[remote "origin"]\n\turl = {_quoted(remote)}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
    head = (folder / "HEAD").read_text("utf-8").strip().removeprefix("ref: ")
    branch = ""
    if head.startswith("refs/heads/"):
        name = head.removeprefix("refs/heads/")
        branch = f"[branch {_quoted(name)}]\n\tremote = origin\n\tmerge = {_quoted(head)}\n"
    path.write_text("".join([*kept, origin, branch]), "utf-8")


def _quoted(text: str) -> str:
    """Return ``text`` as git's configuration files write it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _pieces(entries: Iterable[_Entry], sent: dict[str, str] | None = None) -> Iterator[bytes]:
    """Yield the tar stream of ``entries``; never an empty piece. ``sent`` grows as ``stream`` says."""
    buffer = bytearray()
    for entry in entries:
        own = sent is not None and not _is_git(entry.name)
        for part in _marked(entry, sent) if sent is not None and own else _packed(entry):
            buffer += part
            if len(buffer) >= PIECE:
                yield bytes(buffer)
                buffer.clear()
    yield bytes(buffer) + bytes(2 * _BLOCK)


def _is_git(name: str) -> bool:
    return name == ".git" or name.startswith(".git/")


class Mark:
    """What tells whether a file is what it was: its kind, whether it is executable, its size, its content."""

    def __init__(self) -> None:
        import hashlib

        self._hash = hashlib.blake2b(digest_size=16)
        self._kind = ""
        self._size = 0

    def begin_file(self, mode: int) -> None:
        """Take a file's permissions."""
        self._kind = "program" if mode & stat.S_IXUSR else "file"

    def take(self, content: bytes) -> None:
        """Take a piece of a file's content."""
        self._hash.update(content)
        self._size += len(content)

    def take_link(self, target: str) -> None:
        """Take a link."""
        self._kind = "link"
        self._hash.update(os.fsencode(target))

    def __bool__(self) -> bool:
        return bool(self._kind)

    def __str__(self) -> str:
        return f"{self._kind} {self._size} {self._hash.hexdigest()}"


def _marked(entry: _Entry, sent: dict[str, str]) -> Iterator[bytes]:
    """Pack an entry and note its mark; folders, and what went away, have none."""
    mark = Mark()
    yield from _packed(entry, mark)
    if mark:
        sent[entry.name] = str(mark)


async def marks(spec: CheckoutSpec) -> dict[str, str]:
    """Return what ``stream`` would note as sent. CheckoutError."""
    found: dict[str, str] = {}

    def look(entries: Iterable[_Entry]) -> None:
        for entry in entries:
            if not _is_git(entry.name):
                for _ in _marked(entry, found):
                    pass

    await asyncio.to_thread(look, await _files(spec))
    return found


async def stream_of(root: Path, names: Iterable[str]) -> AsyncGenerator[bytes, None]:
    """Yield a tar stream of these files below ``root``. CheckoutError for one that cannot be read."""
    pieces = _pieces([_Entry(name, root / name) for name in names])
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece


def _packed(entry: _Entry, mark: Mark | None = None) -> Iterator[bytes]:
    """Yield one entry's header and content; what went away meanwhile, and what is no file, is left out."""
    try:
        mode = _mode(entry.path)
        if stat.S_ISREG(mode):
            yield from _packed_file(entry, mark)
        elif stat.S_ISLNK(mode):
            target = str(entry.path.readlink())
            if mark is not None:
                mark.take_link(target)
            yield _header(entry, os.lstat(entry.path), link=target)
        elif stat.S_ISDIR(mode):
            yield _header(entry, os.lstat(entry.path))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as wrong:
        raise CheckoutError(f"cannot read {entry.path}: {wrong.strerror}") from wrong


def _packed_file(entry: _Entry, mark: Mark | None) -> Iterator[bytes]:
    """Yield as many bytes as the header says, whatever happens to the file meanwhile."""
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if mark is not None:
            mark.begin_file(status.st_mode)
        yield _header(entry, status)
        left = status.st_size
        while left and (data := file.read(min(left, PIECE))):
            left -= len(data)
            if mark is not None:
                mark.take(data)
            yield data
        while left:
            filler = bytes(min(left, PIECE))
            left -= len(filler)
            if mark is not None:
                mark.take(filler)
            yield filler
        yield bytes(-status.st_size % _BLOCK)


def _header(entry: _Entry, status: os.stat_result, link: str = "") -> bytes:
    import tarfile

    info = tarfile.TarInfo(entry.name)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if link:
        info.type, info.linkname = tarfile.SYMTYPE, link
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    else:
        info.size = status.st_size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _mode(path: Path) -> int:
    """Return a path's type and permissions, links not followed; 0 if there is nothing."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


@record
class _Answer:
    returncode: int
    stdout: bytes


async def _git(root: Path, *arguments: str, check: bool = True) -> _Answer:
    """Run git; it ends with the task that waits for it. CheckoutError when it fails and ``check`` is set."""
    try:
        process = await asyncio.create_subprocess_exec(
            *git_command(root, *arguments),
            env=git_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is for the run to hear
        )
    except FileNotFoundError as wrong:
        if check or (root / ".git").exists():
            raise CheckoutError(
                "git is not installed", hint="install git: it reads the repository"
            ) from wrong
        return _Answer(128, b"")
    try:
        async with asyncio.timeout(GIT_DEADLINE):
            stdout, stderr = await process.communicate()
    except TimeoutError as late:
        raise CheckoutError(f"git in {root} was not done after {GIT_DEADLINE:g} s") from late
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.killpg(process.pid, signal.SIGKILL)  # git has children of its own
            await process.wait()
    if check and process.returncode:
        said = stderr.decode("utf-8", "replace").strip() or f"exit code {process.returncode}"
        raise CheckoutError(f"git cannot read the repository {root}: {said.splitlines()[-1]}")
    return _Answer(process.returncode or 0, stdout)
