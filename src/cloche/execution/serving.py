"""Which legs a job has, and which image serves its labels."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from cloche.expressions import EvaluationError, to_string
from cloche.workflow.evaluate import evaluate_node
from cloche.workflow.matrix import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.expressions import Scope
    from cloche.workflow.matrix import Leg
    from cloche.workflow.model import Job
    from cloche.workflow.nodes import Node


class NoImageError(Exception):
    """Raised when no image serves a job; ``label`` is the one that is not known."""

    def __init__(self, label: str) -> None:
        super().__init__(f"no image serves the label '{label}'")
        self.label = label


def image_for(wanted: tuple[str, ...], images: Mapping[str, str]) -> str:
    """Return the image that serves all the labels of a ``runs-on``: the first label's. NoImageError."""
    found = [_image(label, images) for label in wanted]
    return found[0]


def _image(label: str, images: Mapping[str, str]) -> str:
    for pattern, image in images.items():
        if fnmatch.fnmatchcase(label.lower(), pattern.lower()):
            return image
    raise NoImageError(label)


def legs_of(job: Job, matrix: Node, scope: Scope, chosen: Mapping[str, str]) -> list[Leg]:
    """Return the legs that ``matrix`` gives a job, of these the ``chosen`` ones. EvaluationError, MatrixError."""
    vectors = evaluate_node(matrix, scope)
    if not isinstance(vectors, dict):
        error = EvaluationError(f"the matrix of job '{job.id}' is no mapping")
        error.position = matrix.position
        raise error
    legs = expand(vectors, job=job.id)
    return [leg for leg in legs if all(to_string(leg[key]) == chosen[key] for key in chosen if key in leg)]
