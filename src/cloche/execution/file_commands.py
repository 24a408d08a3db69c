"""What a step wrote to GITHUB_ENV, GITHUB_OUTPUT, GITHUB_STATE, GITHUB_PATH and GITHUB_STEP_SUMMARY.

Rules: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands and
actions/runner, whose words the errors use. Pure: bytes go in, values come out. Like the runner, the readers
give what stands before a mistake, then raise.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VALUE = 1024 * 1024
"""Characters of one value: GitHub's limit for an output, here for variables and states too."""

MAX_SUMMARY = 1024 * 1024
"""Bytes of one step's summary."""

_SUMMARY_TOO_LONG = (
    "$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of {0}k, got {1}k. "
    "For more information see: https://docs.github.com/actions/using-workflows/"
    "workflow-commands-for-github-actions#adding-a-markdown-summary"
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16's: asked first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class FileCommandError(ValueError):
    """What a step wrote cannot be used; the message says why, in the runner's words."""


def decode(content: bytes) -> str:
    """Decode as .NET does: by the byte order mark, else UTF-8; broken bytes become U+FFFD."""
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return content.decode("utf-8", "replace")


def read_pairs(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the names and values of ``name=value`` lines and of ``name<<delimiter`` blocks.

    Raises FileCommandError at the first line that is neither, at a block without its end, at an empty
    name and at a value that is too long or that no process could be given (one with a null character).
    """
    text = decode(content)
    position = 0
    while position < len(text):
        line, position = _line(text, position)
        if not line:
            continue
        name, operator, rest = _split(line)
        if operator == "<<":
            value, position = _block(text, position, rest)
        else:
            value = rest
        _check(name, value)
        yield name, value


def _split(line: str) -> tuple[str, str, str]:
    match = re.search(r"=|<<", line)
    if match is None:
        raise FileCommandError(f"Invalid format '{_shown(line)}'")
    name, operator, rest = line[: match.start()], match.group(), line[match.end() :]
    if operator == "<<" and not (name and rest):
        raise FileCommandError(
            f"Invalid format '{_shown(line)}'. Name must not be empty and delimiter must not be empty"
        )
    if not name:
        raise FileCommandError(f"Invalid format '{_shown(line)}'. Name must not be empty")
    return name, operator, rest


def _line(text: str, position: int) -> tuple[str, int]:
    """Return the line at ``position``, carriage return included, and where the next one begins."""
    end = text.find("\n", position)
    return (text[position:], len(text)) if end < 0 else (text[position:end], end + 1)


def _block(text: str, start: int, delimiter: str) -> tuple[str, int]:
    """Return the value of the block that starts at ``start`` and the place behind its end."""
    position = start
    while position < len(text):
        begin = position
        line, position = _line(text, begin)
        if line == delimiter:
            return text[start : max(begin - 1, start)], position
        if position == len(text) and text[-1] != "\n":
            raise FileCommandError("Invalid value. EOF marker missing new line.")
    raise FileCommandError(f"Invalid value. Matching delimiter not found '{_shown(delimiter)}'")


def _check(name: str, value: str) -> None:
    if "\0" in name or "\0" in value:
        raise FileCommandError(f"Invalid value of '{_shown(name)}'. It must not hold a null character")
    if max(len(name), len(value)) > MAX_VALUE:
        raise FileCommandError(f"The value of '{_shown(name)}' is longer than {MAX_VALUE >> 20} MiB")


def _shown(text: str) -> str:
    """As much of what the user wrote as an error message can carry."""
    return text if len(text) <= 200 else text[:200] + "…"  # noqa: PLR2004 - a message's length, nothing else


def refused_variable(name: str) -> str | None:
    """Return the error for a variable that GITHUB_ENV may not set, else ``None``.

    GITHUB_* and RUNNER_* are no error: the default variables are laid over whatever a step sets.
    """
    if name.upper() == "NODE_OPTIONS":
        return "Can't store NODE_OPTIONS output parameter using '$GITHUB_ENV' command."
    return None


def read_paths(content: bytes) -> list[str]:
    """Return the folders a step wrote to GITHUB_PATH, in the order written."""
    lines = re.split(r"\r\n|\r|\n", decode(content))
    for line in lines:
        _check("path", line)
    return [line for line in lines if line]


def read_summary(content: bytes) -> str:
    """Return a step's summary, Markdown; raises FileCommandError when it is longer than MAX_SUMMARY."""
    if len(content) > MAX_SUMMARY:
        raise FileCommandError(_SUMMARY_TOO_LONG.format(MAX_SUMMARY >> 10, len(content) >> 10))
    return decode(content)
