"""Steps that run beside others: what ``wait``, ``wait-all``, ``cancel`` and ``parallel`` may say.

Source: actions/languageservices, ``workflow-parser/src/model/converter/steps.ts``, whose words these are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import has_expression, plain_text

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node

_NOT_IN_PARALLEL = ("wait", "wait-all", "cancel")


def check_background(step: Mapping, own_id: str, known_ids: AbstractSet[str], findings: Findings) -> None:
    """Note what is wrong with the targets of one step; ``known_ids`` are those of it and the steps before it."""
    for key in ("wait", "cancel"):
        for target in _scalars(step.get(key)):
            _check_target(target, own_id, known_ids, findings)
    all_ = step.get("wait-all")
    if isinstance(all_, Scalar) and all_.value is False:
        findings.add("The value of 'wait-all' must be true or omitted", all_.position)
    _check_parallel(step, findings)


def _check_target(target: Scalar, own_id: str, known_ids: AbstractSet[str], findings: Findings) -> None:
    text = plain_text(target)
    if not text or has_expression(target):  # the schema has refused it
        return
    if text.startswith("__"):
        message = f"The identifier '{text}' is invalid. IDs starting with '__' are reserved."
        findings.add(message, target.position)
    elif own_id and text.lower() == own_id.lower():
        findings.add(f"Step '{own_id}' cannot reference itself", target.position)
    elif text not in known_ids:
        message = f"Step references unknown step ID '{text}'"
        findings.add_unknown(message, target.position, text, sorted(known_ids))


def _check_parallel(step: Mapping, findings: Findings) -> None:
    steps = step.get("parallel")
    for inner in steps.items if isinstance(steps, Sequence) else ():
        if not isinstance(inner, Mapping):
            continue
        if inner.get("background") is not None:
            message = (
                "'background' is not allowed inside a parallel block. "
                "Steps in a parallel block are automatically run as background steps."
            )
            findings.add(message, step.position, "remove `background`")
        for key in _NOT_IN_PARALLEL:
            if inner.get(key) is not None:
                findings.add(f"'{key}' is not allowed inside a parallel block.", step.position)
        if inner.get("parallel") is not None:
            findings.add("Nested 'parallel' blocks are not allowed.", step.position)


def _scalars(node: Node | None) -> list[Scalar]:
    items = node.items if isinstance(node, Sequence) else (node,)
    return [item for item in items if isinstance(item, Scalar)]
