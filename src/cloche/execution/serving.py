"""Which legs a job has, and which image serves its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.expressions import EvaluationError, to_string
from cloche.workflow.evaluate import evaluate_node
from cloche.workflow.matrix import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloche.expressions import Scope
    from cloche.workflow.matrix import Leg
    from cloche.workflow.model import Job
    from cloche.workflow.nodes import Node


class NoImageError(Exception):
    """Raised when no image serves a job; the message names the labels that are to blame."""


def serving(wanted: tuple[str, ...], image_for: Callable[[Sequence[str]], str | None]) -> str:
    """Return the image that ``image_for`` finds to serve all the labels of a ``runs-on``. NoImageError."""
    if (image := image_for(wanted)) is not None:
        return image
    unknown = [f"'{label}'" for label in wanted if image_for([label]) is None]
    if not unknown:
        raise NoImageError("its labels lead to different images")
    raise NoImageError(f"no image serves the label{'s' * (len(unknown) > 1)} {', '.join(unknown)}")


def legs_of(job: Job, matrix: Node, scope: Scope, chosen: Mapping[str, str]) -> list[Leg]:
    """Return the legs that ``matrix`` gives a job, of these the ``chosen`` ones. EvaluationError, MatrixError."""
    vectors = evaluate_node(matrix, scope)
    if not isinstance(vectors, dict):
        error = EvaluationError(f"the matrix of job '{job.id}' is no mapping")
        error.position = matrix.position
        raise error
    legs = expand(vectors, job=job.id)
    return [leg for leg in legs if all(to_string(leg[key]) == chosen[key] for key in chosen if key in leg)]
