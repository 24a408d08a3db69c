"""``cloche check``: is it a workflow, and if not, why not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloche.errors import EXIT_SUCCESS, EXIT_USAGE, UsageError

if TYPE_CHECKING:
    from cloche.check.judge import Judged


@click.command("check")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("-C", "directory", type=click.Path(path_type=Path), help="The repository.")
@click.option(
    "--output", type=click.Choice(["console", "json", "sarif"]), default="console", show_default=True
)
@click.option("--batch", is_flag=True, help="Answer rows of JSON or paths on standard input, a line each.")
@click.option("--no-template", is_flag=True, help="With --batch: leave the normalised workflow out.")
def check(
    *,
    files: tuple[Path, ...],
    directory: Path | None,
    output: str,
    batch: bool,
    no_template: bool,
) -> None:
    """Check workflow files and action.yml, and every workflow they call, as GitHub does before it runs them.

    FILES are the repository's workflows unless named; a folder stands for those in it. Ends with 2 if one of them is
    refused; what GitHub takes and Cloche does not carry out yet is told as a warning.
    """
    if batch:
        _batch(template=not no_template)
    else:
        judged = _judge(files, directory)
        click.echo(_written(judged, output), nl=False)
        sys.exit(EXIT_SUCCESS if all(one.ok for one in judged) else EXIT_USAGE)


def _batch(*, template: bool) -> None:
    from cloche.check.batch import check_row, rows

    for row in rows(sys.stdin.buffer, lambda line: check_row(line, template=template)):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()


def _judge(files: tuple[Path, ...], directory: Path | None) -> list[Judged]:
    from cloche.check.files import FOLDER, files_at, files_of
    from cloche.check.judge import judge
    from cloche.cli.finding import repository_root

    for path in (*files, *([directory] if directory else [])):
        if not path.exists():
            raise UsageError(
                f"there is no {path}",
                hint="FILES are paths; without any, the repository's workflows are checked",
            )
    root = repository_root(directory, Path.cwd())
    found = [file for path in files for file in files_at(path)] if files else files_of(root)
    if not found:
        where = ", ".join(map(str, files)) or root / FOLDER
        raise UsageError(f"there is no workflow in {where}", hint="cloche check FILE checks any file")
    return [judge(path, root) for path in found]


def _written(judged: list[Judged], output: str) -> str:
    if output == "json":
        from cloche.check.tell import as_json

        return as_json(judged)
    if output == "sarif":
        from cloche.check.sarif import as_sarif

        return as_sarif(judged)
    from cloche.check.tell import as_text
    from cloche.cli.console import colour

    return as_text(judged, colour=colour(sys.stdout))
