"""The ids that GitHub gives to steps which have none.

Source: actions/runner, ``WorkflowParser/Conversion/IdBuilder`` and ``ConvertToSteps``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import plain_text

if TYPE_CHECKING:
    from cloche.workflow.nodes import Node

_MAX = 100
_DOCKER = "docker://"
_SELF = ("./", ".\\", "$/")
_WITHOUT_COMMAND = ("wait", "wait-all", "cancel", "parallel")


def step_ids(node: Node | None) -> list[str]:
    """Return the id of each step of a job: its own, or the one GitHub makes up (``__run_2``)."""
    items = node.items if isinstance(node, Sequence) else ()
    steps = [item for item in items if isinstance(item, Mapping)]
    own = [_own(step) for step in steps]
    taken = {id_.lower() for id_ in own if id_}
    attempts: dict[str, int] = {}
    return [id_ or _made_up(step, taken, attempts) for id_, step in zip(own, steps, strict=True)]


def _own(step: Mapping) -> str:
    written = step.get("id")
    return plain_text(written) if isinstance(written, Scalar) else ""


def _made_up(step: Mapping, taken: set[str], attempts: dict[str, int]) -> str:
    """Return a new id; ``attempts`` remembers how often a name was wanted, so many steps stay cheap."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"__{_says(step)}")
    while True:
        attempt = attempts[name] = attempts.get(name, 0) + 1
        suffix = f"_{attempt}" if attempt > 1 else ""
        candidate = name[: _MAX - len(suffix)] + suffix
        if candidate.lower() not in taken:
            taken.add(candidate.lower())
            return candidate


def _says(step: Mapping) -> str:
    """Return the word for what the step does."""
    uses = step.get("uses")
    if isinstance(uses, Scalar) and step.get("run") is None:
        return _action(plain_text(uses)) or "run"
    return next((key for key in _WITHOUT_COMMAND if step.get(key) is not None), "run")


def _action(uses: str) -> str:
    if uses.startswith(_DOCKER):
        return uses.removeprefix(_DOCKER)
    if uses.startswith(_SELF):
        return "self"
    path, _, ref = uses.partition("@")
    segments = [segment for segment in re.split(r"[/\\]", path) if segment]
    whole = len(segments) > 1 and ref and "@" not in ref
    return "/".join(segments[:2]) if whole else ""
