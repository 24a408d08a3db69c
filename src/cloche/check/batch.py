"""Many verdicts in one process: a row of JSON in, a row of JSON out, as GitHub's parsers are driven in tests."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from cloche.check.files import folder_source, read_file, repository_of
from cloche.check.verdict import ACTION_FILES, action_verdict, read_options, verdict
from cloche.errors import UsageError
from cloche.workflow.reusable import NotHere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloche.workflow.reusable import FileSource

Answer = dict[str, Any]

MAX_LINE = 12 * 1024 * 1024
"""Bytes of one row; a file of 10 MB fits, and is refused for its own size."""
_CHUNK = 64 * 1024
_LONGEST_PATH = 4096
_MOST_DIGITS = 400


def rows(stream: BinaryIO, answer: Callable[[str], Answer]) -> Iterator[str]:
    """Yield a line of JSON for each line of ``stream`` that is not blank; one that is too long is refused."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK)
            yield _written(_refusal(f"the row is longer than {MAX_LINE} bytes"))
        elif not line.isspace():
            yield _written(_answered(line, answer))


def _answered(line: bytes, answer: Callable[[str], Answer]) -> Answer:
    try:
        return answer(line.decode())
    except UnicodeDecodeError:
        return _refusal("the row is not UTF-8")
    except (ValueError, RecursionError):
        return _refusal("the row is not JSON, or nests too deep")
    except UsageError as error:
        return _refusal(error.message)


def _refusal(message: str) -> Answer:
    return {"ok": False, "phase": "input", "message": message, "errors": [message], "jobs": []}


def _written(answer: Answer) -> str:
    return json.dumps(answer, separators=(",", ":"), allow_nan=False)


def read_row(line: str) -> Any:
    """Return what a line of JSON says. ValueError or RecursionError if it is not JSON that we can hold."""
    return json.loads(line, parse_int=_integer, parse_constant=lambda _: None)


def _integer(digits: str) -> float:
    """Python refuses to read integers of thousands of digits; no double tells them apart anyway."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def check_row(line: str, *, template: bool = True) -> Answer:
    """Answer one row: a path, or ``{path, name, content, files, features, depth, options}``.

    The text is ``content``, or what is at ``path``; ``depth`` 0 leaves calls of other workflows alone. Raises
    UsageError for a row that makes no sense, ValueError for one that is not JSON.
    """
    row = read_row(line) if line.startswith("{") else {"path": line[:_LONGEST_PATH].strip()}
    path = _text(row, "path")
    content = _text(row, "content")
    name = _text(row, "name") or (PurePosixPath(path).name if path else "workflow.yml")
    options = read_options(_object(row, "options"), _object(row, "features"), template=template)
    if content is None and path is None:
        raise UsageError("a row has a `path` or `content`")
    try:
        text = content if content is not None else read_file(Path(str(path)))
    except UsageError as error:
        return {"path": path, "ok": False, "errors": [error.message], "jobs": []}
    if PurePosixPath(name).name in ACTION_FILES:
        return {"path": path, **action_verdict(text, name, options)}
    return {"path": path, **verdict(text, name, _files(row, path), options)}


def _files(row: dict[str, Any], path: str | None) -> FileSource | None:
    """Return where called files come from: the row, then the repository around ``path``."""
    given = {key.lower(): text for key, text in _object(row, "files").items() if isinstance(text, str)}
    if not row.get("depth") or _object(row, "options").get("skip-reusable-workflows"):
        return None
    root = repository_of(Path(path)) if path else None
    local = folder_source(root) if root else None

    def source(ref: str) -> str | bytes | None:
        found = given.get(ref.lower())
        try:
            return found if found is not None or local is None else local(ref)
        except NotHere:
            return None

    return source


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"`{key}` of a row is text")
    # JSON can hold half a surrogate pair, which is no character and can never be printed.
    return None if value is None else re.sub("[\ud800-\udfff]", "\ufffd", value)


def _object(row: dict[str, Any], key: str) -> dict[str, Any]:
    value = row.get(key)
    return value if isinstance(value, dict) else {}
