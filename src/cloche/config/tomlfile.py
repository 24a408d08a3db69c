"""TOML files that may be anything: read within bounds, with the places where keys are written."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from cloche.errors import Position, UsageError
from cloche.units import format_size

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE = 64 * 1024
"""Bytes of a configuration file; a longer one is refused."""


class TomlFile(NamedTuple):
    """A TOML file: its path, its text (for positions), its tables."""

    path: Path
    text: str
    tables: dict[str, Any]

    def position(self, section: str, key: str | None = None) -> Position:
        """Where a key is written, as well as its lines tell; the file's start if they do not."""
        current = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            stripped = line.strip()
            column = len(line) - len(line.lstrip()) + 1
            if stripped.startswith("["):
                current = stripped.strip("[] ").strip("\"'")
                if current == section and key is None:
                    return Position(str(self.path), number, column)
            name = stripped.partition("=")[0].strip().strip("\"'")
            if (key is not None and current == section and name == key) or (not current and name == section):
                return Position(str(self.path), number, column)
        return Position(str(self.path), 1, 1)


def open_toml(path: Path) -> TomlFile | None:
    """Read a TOML file; ``None`` if there is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as wrong:
        raise UsageError(f"cannot read {path}: {wrong.strerror}") from wrong
    if len(data) > MAX_FILE:
        raise UsageError(f"{path} is longer than {format_size(MAX_FILE)}", hint="it is read at every start")
    return _parse(path, data)


def _parse(path: Path, data: bytes) -> TomlFile:
    import tomllib

    try:
        text = data.decode()
        return TomlFile(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as wrong:
        message, _, place = str(wrong).partition(" (at ")
        numbers = [
            int(word) for word in place.replace(",", " ").replace(")", " ").split() if word.isdecimal()
        ]
        line, column = numbers if len(numbers) == 2 else (1, 1)  # noqa: PLR2004 - "line 3, column 7", or the end
        raise UsageError(f"not TOML: {message}", position=Position(str(path), line, column)) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not a TOML file in UTF-8") from None
