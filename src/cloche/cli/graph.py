"""``cloche graph``: which job waits for which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloche.errors import Diagnostic
    from cloche.workflow.model import Workflow


@click.command("graph")
@click.argument("workflow", required=False)
@click.option("-C", "directory", type=click.Path(path_type=Path), help="The repository.")
@click.option("--mermaid", is_flag=True, help="As a Mermaid flowchart, which Markdown can hold.")
def graph(*, workflow: str | None, directory: Path | None, mermaid: bool) -> None:
    """Show the jobs of WORKFLOW in the order they can start, or of every workflow of the repository.

    WORKFLOW is a file, or a name in .github/workflows with or without .yml.
    """
    from cloche.check.graphs import as_mermaid, as_text

    shown = [as_mermaid(one) if mermaid else as_text(one) for one in _workflows(workflow, directory)]
    click.echo("\n".join(shown), nl=False)


def _workflows(named: str | None, directory: Path | None) -> list[Workflow]:
    from cloche.check.files import read_file
    from cloche.cli.finding import repository_root, workflow_files
    from cloche.errors import WorkflowError
    from cloche.workflow.parse import parse_workflow

    root = repository_root(directory, Path.cwd())
    workflows: list[Workflow] = []
    diagnostics: list[Diagnostic] = []
    for path in workflow_files(root, named):
        shown = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        try:
            workflows.append(parse_workflow(read_file(path), shown, allow_unsupported=True))
        except WorkflowError as error:
            diagnostics += error.diagnostics
    if diagnostics:
        raise WorkflowError(tuple(diagnostics))
    return workflows
