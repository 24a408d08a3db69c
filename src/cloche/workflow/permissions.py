"""``permissions``: what a workflow or job lets its token do, and whether a called workflow asks for more.

Source: actions/runner, ``WorkflowParser/Conversion/PermissionsHelper``, and docs.github.com, "Reuse workflows",
section "Access and permissions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record
from cloche.workflow.nodes import Mapping, Scalar
from cloche.workflow.templates import plain_text

if TYPE_CHECKING:
    from cloche.workflow.nodes import Node

Levels = dict[str, str]
"""Permission to level, ``read`` or ``write``; what is not in it is ``none``."""

POLICIES = ("LimitedRead", "Write")
"""What a token may do where nobody says: the two settings of a repository."""

# In the order that GitHub compares and lists them. "All" means these.
_COMPARED = (
    "actions",
    "checks",
    "contents",
    "deployments",
    "discussions",
    "issues",
    "packages",
    "pages",
    "pull-requests",
    "repository-projects",
    "statuses",
    "security-events",
    "id-token",
)
_ALL = {"read-all": "read", "write-all": "write"}
_RANK = {"none": 0, "read": 1, "write": 2}
_LIMITED_READ = {"contents": "read", "packages": "read"}
_ID_TOKEN = "id-token"  # noqa: S105 - a permission's name


@record
class Maximum:
    """What a called workflow may ask for: ``levels``, and ``others`` for what is not among them."""

    levels: Levels
    others: str = "none"

    def level(self, permission: str) -> str:
        """Return the highest level allowed for ``permission``."""
        return self.levels.get(permission, self.others)


def read_permissions(node: Node | None) -> Levels | None:
    """Return the levels that a checked ``permissions`` gives, ``None`` where none was written."""
    if isinstance(node, Mapping):
        levels = {plain_text(key): plain_text(value) for key, value in node if isinstance(value, Scalar)}
        return {name: level for name, level in levels.items() if level != "none"}
    if isinstance(node, Scalar) and (level := _ALL.get(plain_text(node))):
        return dict.fromkeys(_COMPARED, level)
    return None


def policy_maximum(policy: str, *, trusted: bool) -> Maximum:
    """Return what the setting of the repository allows; ``trusted``: the callee is the repository's own."""
    if policy == "LimitedRead":
        return Maximum(_LIMITED_READ)
    return Maximum({} if trusted else {_ID_TOKEN: "none"}, "write")


def excess(requested: Levels, allowed: Maximum) -> tuple[str, str] | None:
    """Return what is requested beyond what is allowed, and what is allowed of that, in GitHub's words."""
    others = sorted(name for name in requested if name not in _COMPARED)
    over = [
        name
        for name in (*_COMPARED, *others)
        if _RANK[requested.get(name, "none")] > _RANK[allowed.level(name)]
    ]
    if not over:
        return None
    return (
        ", ".join(f"{name}: {requested[name]}" for name in over),
        ", ".join(f"{name}: {allowed.level(name)}" for name in over),
    )
