"""The graph of a workflow's jobs, as lines of text and as a Mermaid flowchart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.workflow.graph import layers
from cloche.workflow.matrix import MatrixError, expand
from cloche.workflow.nodes import Mapping
from cloche.workflow.templates import has_expression, plain_text, plain_value

if TYPE_CHECKING:
    from cloche.workflow.model import Job, Workflow


def as_text(workflow: Workflow) -> str:
    """Return a line for each job, one paragraph for those that can start at the same time."""
    width = max(len(id_) for id_ in workflow.jobs)
    stages = ["".join(_line(workflow.jobs[id_], width) for id_ in layer) for layer in layers(workflow.jobs)]
    return f"{workflow.display_name}\n" + "  │\n".join(stages)


def _line(job: Job, width: int) -> str:
    about = [f"after {', '.join(job.needs)}" if job.needs else "", _legs(job), _calls(job)]
    return f"  {job.id:<{width}}  {' · '.join(part for part in about if part)}".rstrip() + "\n"


def as_mermaid(workflow: Workflow) -> str:
    """Return a Mermaid flowchart: a node for each job, an arrow from each need."""
    names = {id_: f"j{number}" for number, id_ in enumerate(workflow.jobs)}
    lines = [f"%% {workflow.display_name}".replace("\n", " "), "flowchart LR"]
    for id_, job in workflow.jobs.items():
        about = [part for part in (id_, _legs(job), _calls(job)) if part]
        lines.append(f'  {names[id_]}["{"<br>".join(map(_escaped, about))}"]')
    for id_, job in workflow.jobs.items():
        lines += [f"  {names[need]} --> {names[id_]}" for need in job.needs]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return text that means nothing to Mermaid, nor to the HTML it makes."""
    return "".join(one if one.isalnum() or one in " ._-/@,:" else f"#{ord(one)};" for one in text)


def _legs(job: Job) -> str:
    matrix = job.strategy.matrix if job.strategy else None
    if matrix is None:
        return ""
    plain = plain_value(matrix) if isinstance(matrix, Mapping) and not has_expression(matrix) else None
    if not isinstance(plain, dict):
        return "a matrix"
    try:
        legs = len(expand(plain))
    except MatrixError:  # check tells what is wrong with it
        return "a matrix"
    return f"{legs} legs" if legs != 1 else "1 leg"


def _calls(job: Job) -> str:
    return f"calls {plain_text(job.uses)}" if job.uses else ""
