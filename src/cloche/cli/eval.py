"""``cloche eval``: what an expression is worth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloche.errors import EXIT_WORKFLOW_FAILED, UsageError

if TYPE_CHECKING:
    from cloche.expressions import ExpressionError, Value

_MOST_BYTES = 4 * 1024 * 1024
_FUNCTIONS: dict[str, Value] = {"success": True, "always": True, "failure": False, "cancelled": False}


@click.command("eval")
@click.argument("expression", required=False, metavar="[EXPR]")
@click.option(
    "--context",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The contexts, as JSON: {github: …, env: …}. Without it all are empty.",
)
@click.option("--output", type=click.Choice(["console", "json"]), default="console", show_default=True)
@click.option("--batch", is_flag=True, help="Answer rows of JSON on standard input, a line each.")
def evaluate(*, expression: str | None, context: Path | None, output: str, batch: bool) -> None:
    """Print what EXPR is worth: an expression, or a text with ${{ }} in it. Without EXPR, standard input's."""
    if batch:
        _batch()
        return
    text = expression if expression is not None else _standard_input()
    contexts = _contexts(context)
    value = _evaluated(text, contexts)
    click.echo(_json(value) if output == "json" else _shown(value))


def _batch() -> None:
    from cloche.check.batch import rows
    from cloche.check.values import eval_row

    for row in rows(sys.stdin.buffer, eval_row):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()


def _evaluated(text: str, contexts: dict[str, Value]) -> Value:
    from cloche.check.values import evaluate as value_of
    from cloche.expressions import CONTEXTS, ExpressionError

    known = {**dict.fromkeys(CONTEXTS), **contexts}
    try:
        return value_of(text, known, _FUNCTIONS, template="${{" in text)
    except ExpressionError as error:
        click.echo(_complaint(text, error), err=True)
        sys.exit(error.exit_code or EXIT_WORKFLOW_FAILED)


def _complaint(text: str, error: ExpressionError) -> str:
    from cloche.check.excerpt import excerpt

    line = text.count("\n", 0, error.offset) + 1
    column = error.offset - (text.rfind("\n", 0, error.offset) + 1) + 1
    hint = f"\n  hint: {error.hint}" if error.hint else ""
    return f"error: {error.message}\n{excerpt(text, line, column)}{hint}"


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read(_MOST_BYTES).decode().strip("\n")
    except UnicodeDecodeError:
        raise UsageError("the expression on standard input is not UTF-8") from None


def _contexts(path: Path | None) -> dict[str, Value]:
    if path is None:
        return {}
    from cloche.check.files import read_file

    try:
        contexts = json.loads(read_file(path))
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON, is longer than 4 MiB or nests too deep") from None
    if not isinstance(contexts, dict):
        raise UsageError(f"{path} is not an object of contexts", hint='write {"github": {…}, "env": {…}}')
    return contexts


def _shown(value: Value) -> str:
    from cloche.expressions.values import is_primitive, to_string

    return (
        to_string(value) if is_primitive(value) else json.dumps(_plain(value), indent=2, ensure_ascii=False)
    )


def _json(value: Value) -> str:
    from cloche.expressions.values import kind, to_string

    return json.dumps(
        {"kind": kind(value), "value": _plain(value), "str": to_string(value)}, ensure_ascii=False
    )


def _plain(value: Value) -> Any:
    from cloche.check.values import plain

    return plain(value)
