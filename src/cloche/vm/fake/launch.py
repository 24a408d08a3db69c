"""Finding and starting programs in a fake job root, as ``execvp`` does."""

from __future__ import annotations

import errno
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from cloche.vm.fake.files import File, Folder, Program, error
from cloche.vm.fake.streams import decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.vm.fake.files import FileSystem
    from cloche.vm.fake.streams import Call

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for when the environment has no PATH."""
NOT_FOUND = 127
NOT_EXECUTABLE = 126
SIGNALLED = 128
"""Added to a signal's number: the status of what it ended."""
MAX_INTERPRETERS = 4
"""Scripts that name scripts as their interpreter, one after another, before ELOOP."""


def find_program(files: FileSystem, name: str, env: Mapping[str, str], cwd: str) -> str | None:
    """Find where a program is: by its path, or in the folders of PATH; ``None`` if nowhere."""
    if "/" in name:
        return name if files.lookup(name, cwd) is not None else None
    for folder in env.get("PATH", DEFAULT_PATH).split(":"):
        path = posixpath.join(folder or ".", name)
        node = files.lookup(path, cwd)
        if node is not None and not isinstance(node, Folder) and node.mode & 0o111:
            return path
    return None


async def execute(call: Call, *, depth: int = 0) -> int:
    """Run a program of the fake's own, or a script by its first line's interpreter (``/bin/sh`` without).

    FileNotFoundError or PermissionError when there is no such program.
    """
    files = call.task.files
    path = find_program(files, call.argv[0], call.env, call.cwd)
    if path is None:
        raise error(errno.ENOENT, call.argv[0])
    node = files.find(path, call.cwd)
    if isinstance(node, Program):
        return await _run_own(call, node.name)
    if not isinstance(node, File) or not node.mode & 0o111:
        raise error(errno.EACCES, call.argv[0])
    if depth == MAX_INTERPRETERS:
        raise error(errno.ELOOP, call.argv[0])
    first = decode(bytes(node.content).split(b"\n", 1)[0])
    interpreter = (first[2:].split(None, 1) if first.startswith("#!") else []) or ["/bin/sh"]
    return await execute(replace(call, argv=[*interpreter, path, *call.argv[1:]]), depth=depth + 1)


async def _run_own(call: Call, name: str) -> int:
    try:
        return await call.task.root.programs[name](call)
    except BrokenPipeError:
        raise
    except OSError as wrong:
        return await call.complain(f"{wrong.filename}: {wrong.strerror}")
    except (ValueError, IndexError):
        return await call.complain(f"{' '.join(call.argv[1:])}: arguments the fake does not know")
