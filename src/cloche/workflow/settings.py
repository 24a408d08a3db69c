"""What GitHub checks of a job's settings beyond the schema: runner groups, images, names, versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloche.workflow.nodes import Mapping, Scalar
from cloche.workflow.templates import has_expression, plain_text

if TYPE_CHECKING:
    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node

_GROUP_PREFIXES = frozenset({"org", "organization", "ent", "enterprise"})
_MAX_CONCURRENCY_GROUP = 400
_DOCKER = "docker://"
_SNAPSHOT_VERSION = re.compile(r"[0-9]+\.\*")


def check_settings(job: Mapping, findings: Findings) -> None:
    """Note what is wrong with the settings of one job, wherever they hold no expression."""
    _check_group(job.get("runs-on"), findings)
    check_concurrency(job.get("concurrency"), findings)
    _check_image(job.get("container"), findings, may_be_empty=True)
    services = job.get("services")
    for _, service in services if isinstance(services, Mapping) else ():
        _check_image(service, findings, may_be_empty=False)
    _check_snapshot(job.get("snapshot"), findings)


def check_concurrency(node: Node | None, findings: Findings) -> None:
    """Note a concurrency group whose name is too long."""
    group = node.get("group") if isinstance(node, Mapping) else node
    if node is not None and len(_literal(group)) > _MAX_CONCURRENCY_GROUP:
        message = f"Concurrency group name must be less than {_MAX_CONCURRENCY_GROUP} characters"
        findings.add(message, node.position)


def _literal(node: Node | None) -> str:
    """Return the text of a scalar without expressions, or nothing."""
    return plain_text(node) if isinstance(node, Scalar) and not has_expression(node) else ""


def _check_group(runs_on: Node | None, findings: Findings) -> None:
    group = runs_on.get("group") if isinstance(runs_on, Mapping) else None
    name = _literal(group)
    prefix, slash, rest = name.partition("/")
    if group is None or not slash:
        return
    message = f"Invalid runs-on group name '{name}'."
    if not rest:
        findings.add(message, group.position)
    elif "/" in rest or prefix not in _GROUP_PREFIXES:
        advice = "Please use 'organization/' or 'enterprise/' prefix to target a single runner group."
        findings.add(f"{message} {advice}", group.position)


def _check_image(container: Node | None, findings: Findings, *, may_be_empty: bool) -> None:
    if container is None or has_expression(container):
        return
    image = container.get("image") if isinstance(container, Mapping) else container
    text = plain_text(image) if isinstance(image, Scalar) else ""
    if text == _DOCKER or (image is None and not may_be_empty):
        findings.add("Container image cannot be empty", container.position)


def _check_snapshot(snapshot: Node | None, findings: Findings) -> None:
    version = _literal(snapshot.get("version")) if isinstance(snapshot, Mapping) else ""
    if snapshot is not None and version and not _SNAPSHOT_VERSION.fullmatch(version):
        findings.add(f"Expected format '{{major-version}}.*' Actual '{version}'", snapshot.position)
