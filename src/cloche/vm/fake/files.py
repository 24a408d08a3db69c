"""A root filesystem in memory: what a job of the fake provider sees."""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import posixpath
import stat
import tarfile
from dataclasses import field
from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINKS = 40
"""Symbolic links followed in one path before ELOOP, as Linux does."""


@record(frozen=False)
class File:
    """A regular file."""

    content: bytearray = field(default_factory=bytearray)
    mode: int = 0o644


@record(frozen=False)
class Program:
    """An executable that the fake carries out itself, by name."""

    name: str
    mode: int = 0o755


@record(frozen=False)
class Device:
    """``null`` or ``zero``."""

    name: str
    mode: int = 0o666


@record(frozen=False)
class Link:
    """A symbolic link."""

    target: str
    mode: int = 0o777


@record(frozen=False)
class Folder:
    """A directory."""

    entries: dict[str, Node] = field(default_factory=dict)
    mode: int = 0o755


Node = File | Program | Device | Link | Folder


def error(number: int, path: str) -> OSError:
    """Make the OSError a kernel would give for ``path``."""
    return OSError(number, os.strerror(number), path)


def _size(node: Node) -> int:
    match node:
        case File():
            return len(node.content)
        case Folder():
            return sum(map(_size, node.entries.values()))
        case _:
            return 0


class FileSystem:
    """Folders, files and symbolic links in memory, holding at most ``capacity`` bytes of content.

    Paths are POSIX; relative ones start at the ``cwd`` given. Everything raises the OSError that Linux would.
    """

    def __init__(self, capacity: int) -> None:
        self.root = Folder()
        self.capacity = capacity
        self._used = 0

    def resolve(self, path: str, cwd: str = "/", *, follow: bool = True) -> str:
        """Make a path absolute, without links, ``.`` and ``..``; its last part need not exist."""
        todo = [part for part in reversed(posixpath.join(cwd, path).split("/")) if part not in {"", "."}]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                done = done[:-1]
                continue
            node = self._child(done, part, path, last=not todo)
            if isinstance(node, Link) and (todo or follow):
                links += 1
                if links > MAX_LINKS:
                    raise error(errno.ELOOP, path)
                if node.target.startswith("/"):
                    done = []
                todo += [p for p in reversed(node.target.split("/")) if p not in {"", "."}]
            else:
                done.append(part)
        return "/" + "/".join(done)

    def _child(self, parents: list[str], name: str, path: str, *, last: bool) -> Node | None:
        folder: Node = self.root
        for part in parents:
            if not isinstance(folder, Folder) or part not in folder.entries:
                raise error(errno.ENOENT, path)
            folder = folder.entries[part]
        if not isinstance(folder, Folder):
            raise error(errno.ENOTDIR, path)
        node = folder.entries.get(name)
        if node is None and not last:
            raise error(errno.ENOENT, path)
        return node

    def find(self, path: str, cwd: str = "/", *, follow: bool = True) -> Node:
        """Return the node at ``path``."""
        node: Node = self.root
        for part in self.resolve(path, cwd, follow=follow).split("/"):
            if part:
                if not isinstance(node, Folder):
                    raise error(errno.ENOTDIR, path)
                if part not in node.entries:
                    raise error(errno.ENOENT, path)
                node = node.entries[part]
        return node

    def lookup(self, path: str, cwd: str = "/", *, follow: bool = True) -> Node | None:
        """Return the node at ``path``, ``None`` if there is none."""
        try:
            return self.find(path, cwd, follow=follow)
        except OSError:
            return None

    def read(self, path: str, cwd: str = "/") -> bytes:
        """Return the content of the file at ``path``."""
        match self.find(path, cwd):
            case File(content=content):
                return bytes(content)
            case Folder():
                raise error(errno.EISDIR, path)
            case _:
                return b""

    def write(
        self, path: str, data: bytes, cwd: str = "/", *, append: bool = False, mode: int | None = None
    ) -> None:
        """Make or overwrite the file at ``path``, or add to it; a new file has mode 0644 unless told."""
        node = self.lookup(path, cwd)
        match node:
            case None:
                node = File()
                self.add(path, node, cwd)
            case Folder():
                raise error(errno.EISDIR, path)
            case Device():
                return
            case Program() | Link():
                raise error(errno.EACCES, path)
        if not append:
            self._used -= len(node.content)
            node.content.clear()
        if self._used + len(data) > self.capacity:
            raise error(errno.ENOSPC, path)
        self._used += len(data)
        node.content += data
        if mode is not None:
            node.mode = mode

    def add(self, path: str, node: Node, cwd: str = "/", *, follow: bool = True) -> None:
        """Put ``node`` where nothing is yet; its folder must exist."""
        parent, name = posixpath.split(self.resolve(path, cwd, follow=follow))
        folder = self.find(parent)
        if not isinstance(folder, Folder):
            raise error(errno.ENOTDIR, path)
        if not name or name in folder.entries:
            raise error(errno.EEXIST, path)
        self._used += _size(node)
        folder.entries[name] = node

    def make_folders(self, path: str, cwd: str = "/") -> None:
        """Make a folder and the parents it misses."""
        whole = posixpath.normpath(posixpath.join(cwd, path))
        prefix = ""
        for part in whole.strip("/").split("/"):
            prefix += f"/{part}"
            found = self.lookup(prefix)
            if found is None:
                self.add(prefix, Folder())
            elif not isinstance(found, Folder):
                raise error(errno.ENOTDIR, path)

    def remove(self, path: str, cwd: str = "/", *, recursive: bool = False) -> None:
        """Remove a file, a link or, with ``recursive``, a folder and all below it."""
        node = self.find(path, cwd, follow=False)
        if isinstance(node, Folder) and not recursive:
            raise error(errno.EISDIR, path)
        parent, name = posixpath.split(self.resolve(path, cwd, follow=False))
        folder = self.find(parent)
        if not isinstance(folder, Folder) or not name:
            raise error(errno.EBUSY, path)
        del folder.entries[name]
        self._used -= _size(node)

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        """Visit ``path`` (as "") and all below it, by relative path, folders before content, by name."""
        stack = [("", self.find(path, follow=False))]
        while stack:
            prefix, node = stack.pop()
            yield prefix, node
            if isinstance(node, Folder):
                names = sorted(node.entries, key=os.fsencode, reverse=True)
                stack += [(posixpath.join(prefix, name), node.entries[name]) for name in names]

    def glob(self, pattern: str, cwd: str = "/") -> list[str]:
        """Match paths as a shell does, by ``*``, ``?`` and ``[…]``, sorted."""
        absolute = pattern.startswith("/")
        found = ["/" if absolute else ""]
        for part in filter(None, pattern.split("/")):
            found = [posixpath.join(base, name) for base in found for name in self._matches(base, part, cwd)]
        return found

    def _matches(self, base: str, part: str, cwd: str) -> list[str]:
        if not any(sign in part for sign in "*?["):
            there = self.lookup(posixpath.join(base, part), cwd, follow=False)
            return [part] if there is not None else []
        folder = self.lookup(base or ".", cwd)
        if not isinstance(folder, Folder):
            return []
        return sorted(
            name
            for name in folder.entries
            if fnmatch.fnmatchcase(name, part) and (part[0] == "." or name[0] != ".")
        )

    def tar(self, path: str) -> bytes:
        """Pack a file or folder, named by the path's last part."""
        top = posixpath.basename(path.rstrip("/")) or "."
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, node in self.walk(path):
                entry, content = _tar_entry(posixpath.join(top, name) if name else top, node)
                archive.addfile(entry, content)
        return target.getvalue()

    def untar(self, path: str, data: bytes) -> None:
        """Unpack a tar archive below ``path``, replacing files that are there."""
        self.make_folders(path)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                self._unpack(archive, entry, path)

    def _unpack(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, base: str) -> None:
        target = posixpath.join(base, posixpath.normpath(f"/{entry.name}").lstrip("/"))
        if entry.isdir():
            self.make_folders(target)
            self.find(target).mode = entry.mode
            return
        self.make_folders(posixpath.dirname(target))
        if self.lookup(target, follow=False) is not None:
            self.remove(target)
        if entry.issym():
            self.add(target, Link(entry.linkname), follow=False)
        elif (content := archive.extractfile(entry)) is not None:  # hard links lead to what they link to
            self.write(target, content.read(), mode=entry.mode)


def _tar_entry(name: str, node: Node) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(node.mode)
    match node:
        case File(content=content):
            entry.size = len(content)
            return entry, io.BytesIO(content)
        case Folder():
            entry.type = tarfile.DIRTYPE
        case Link(target=target):
            entry.type, entry.linkname = tarfile.SYMTYPE, target
        case Program() | Device():
            pass  # shown as an empty file: its work is done by the fake itself
    return entry, None
