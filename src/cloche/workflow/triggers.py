"""When a workflow runs: reading ``on``, and matching it with what happened.

Source: docs.github.com, "Events that trigger workflows" and "Workflow syntax", section ``on``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record
from cloche.workflow.cron import MESSAGE as INVALID_CRON
from cloche.workflow.cron import is_cron
from cloche.workflow.filters import ignored, included
from cloche.workflow.model import Trigger
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import plain_text

if TYPE_CHECKING:
    from cloche.workflow.findings import Findings
    from cloche.workflow.model import Workflow
    from cloche.workflow.nodes import Node

_BRANCH = "refs/heads/"
_TAG = "refs/tags/"
_DEFAULT_TYPES = {
    "merge_group": ("checks_requested",),
    "pull_request": ("opened", "synchronize", "reopened"),
    "pull_request_target": ("opened", "synchronize", "reopened"),
}
_BASE_BRANCH_EVENTS = frozenset({"pull_request", "pull_request_target", "merge_group"})


@record
class TriggerEvent:
    """What happened. ``None`` is "not known", and what is not known holds no workflow back.

    ``ref`` is full (``refs/heads/main``); ``base_ref`` is the branch a pull request goes to, short or full.
    """

    name: str
    action: str | None = None
    ref: str | None = None
    base_ref: str | None = None
    changed_paths: tuple[str, ...] | None = None


def matches(workflow: Workflow, event: TriggerEvent) -> bool:
    """Return whether GitHub would run ``workflow`` for ``event``."""
    trigger = workflow.triggers.get(event.name)
    return trigger is not None and _type_matches(trigger, event) and _filters_match(trigger, event)


def _type_matches(trigger: Trigger, event: TriggerEvent) -> bool:
    types = trigger.types or _DEFAULT_TYPES.get(event.name, ())
    return not types or event.action is None or event.action in types


def _filters_match(trigger: Trigger, event: TriggerEvent) -> bool:
    if event.name == "push":
        return _push_matches(trigger, event)
    if event.name in _BASE_BRANCH_EVENTS:
        return _name_matches(trigger, event.base_ref) and _paths_match(trigger, event)
    if event.name == "workflow_run":
        return _name_matches(trigger, event.ref)
    return True


def _push_matches(trigger: Trigger, event: TriggerEvent) -> bool:
    """Match a push to a branch or a tag; filters on one of the two alone keep the other from running."""
    if event.ref is None:
        return _paths_match(trigger, event)
    has_branches = bool(trigger.branches or trigger.branches_ignore)
    has_tags = bool(trigger.tags or trigger.tags_ignore)
    if event.ref.startswith(_TAG):
        name = event.ref.removeprefix(_TAG)
        if has_tags:
            return _passes(trigger.tags, trigger.tags_ignore, (name,))
        return not has_branches
    if has_tags and not has_branches:
        return False
    return _name_matches(trigger, event.ref) and _paths_match(trigger, event)


def _name_matches(trigger: Trigger, ref: str | None) -> bool:
    names = None if ref is None else (ref.removeprefix(_BRANCH),)
    return _passes(trigger.branches, trigger.branches_ignore, names)


def _paths_match(trigger: Trigger, event: TriggerEvent) -> bool:
    return _passes(trigger.paths, trigger.paths_ignore, event.changed_paths)


def _passes(only: tuple[str, ...], not_: tuple[str, ...], names: tuple[str, ...] | None) -> bool:
    if names is None:
        return True
    if only and not included(only, names):
        return False
    return not (not_ and ignored(not_, names))


def read_triggers(node: Node | None, findings: Findings) -> dict[str, Trigger]:
    """Read ``on`` as triggers by event, in file order. Notes cron expressions and inputs that are none.

    The schema has been checked; what it refused is passed over.
    """
    if isinstance(node, Mapping):
        _check_crons(node.get("schedule"), findings)
        _check_choices(node.get("workflow_dispatch"), findings)
        return {key.text: _trigger(key, value) for key, value in node}
    return {text: Trigger(text, item.position) for text, item in _strings(node)}


def _check_crons(schedule: Node | None, findings: Findings) -> None:
    for item in schedule.items if isinstance(schedule, Sequence) else ():
        cron = item.get("cron") if isinstance(item, Mapping) else None
        if isinstance(cron, Scalar) and plain_text(cron) and not is_cron(plain_text(cron)):
            findings.add(INVALID_CRON, cron.position)


def _check_choices(dispatch: Node | None, findings: Findings) -> None:
    """Note inputs to choose from that offer nothing, and offers for inputs of another type."""
    inputs = dispatch.get("inputs") if isinstance(dispatch, Mapping) else None
    for _, spec in inputs if isinstance(inputs, Mapping) else ():
        if not isinstance(spec, Mapping):
            continue
        type_, options = spec.get("type"), spec.get("options")
        is_choice = isinstance(type_, Scalar) and plain_text(type_) == "choice"
        if is_choice and not (isinstance(options, Sequence) and options.items):
            findings.add("Missing 'options' for choice input", spec.position)
        elif not is_choice and options is not None:
            findings.add("Input type is not 'choice', but 'options' is defined", spec.position)


def _trigger(key: Scalar, config: Node) -> Trigger:
    if not isinstance(config, Mapping):
        return Trigger(key.text, key.position)

    def texts(name: str) -> tuple[str, ...]:
        return tuple(text for text, _ in _strings(config.get(name)))

    def mapping(name: str) -> Mapping | None:
        found = config.get(name)
        return found if isinstance(found, Mapping) else None

    return Trigger(
        key.text,
        key.position,
        types=texts("types"),
        branches=texts("branches"),
        branches_ignore=texts("branches-ignore"),
        tags=texts("tags"),
        tags_ignore=texts("tags-ignore"),
        paths=texts("paths"),
        paths_ignore=texts("paths-ignore"),
        inputs=mapping("inputs"),
        secrets=mapping("secrets"),
        outputs=mapping("outputs"),
    )


def _strings(node: Node | None) -> list[tuple[str, Scalar]]:
    """Return the texts of a scalar or of a list of scalars."""
    items = node.items if isinstance(node, Sequence) else (node,)
    return [(plain_text(item), item) for item in items if isinstance(item, Scalar) and item.value is not None]
