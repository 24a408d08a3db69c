"""Files to check: which there are, and their text, never more of it than is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.errors import UsageError
from cloche.workflow.reusable import NotHere

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.workflow.reusable import FileSource

FOLDER = ".github/workflows"
_SUFFIXES = (".yml", ".yaml")
MOST_BYTES = 4 * 1024 * 1024 + 1
"""What is read of a file at most: one byte more than the longest that can be accepted."""


def read_file(path: Path) -> bytes:
    """Return a file's bytes, cut where it is too long for a workflow. UsageError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no path"
        raise UsageError(f"cannot read {path}: {reason}") from None


def repository_of(path: Path) -> Path | None:
    """Return the repository whose ``.github/workflows`` holds ``path``, ``None`` if there is none."""
    folder = path.absolute().parent
    return folder.parent.parent if folder.as_posix().endswith(f"/{FOLDER}") else None


def folder_source(root: Path) -> FileSource:
    """Return a source of the files that a repository calls by ``./path``; it never leaves the repository.

    It raises NotHere for the files of other repositories.
    """
    home = root.resolve()

    def source(ref: str) -> bytes | None:
        if not ref.startswith("./"):
            raise NotHere
        path = (home / ref.removeprefix("./")).resolve()
        if not path.is_relative_to(home) or not path.is_file():
            return None
        return read_file(path)

    return source


def files_at(path: Path) -> list[Path]:
    """Return the files to check where a folder is named: its workflows, a repository's if it has them."""
    if not path.is_dir():
        return [path]
    return files_of(path) or sorted(
        one for one in path.glob("*") if one.suffix in _SUFFIXES and one.is_file()
    )


def files_of(root: Path) -> list[Path]:
    """Return a repository's workflows, and its action if it is one."""
    folder = root / FOLDER
    workflows = sorted(path for path in folder.glob("*") if path.suffix in _SUFFIXES and path.is_file())
    return workflows + [path for path in (root / "action.yml", root / "action.yaml") if path.is_file()]
