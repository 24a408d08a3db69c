"""What expressions and programs of a job can see: GitHub's contexts and default variables.

https://docs.github.com/en/actions/reference/workflows-and-actions/contexts and, on the same site, "Variables
reference". Which entries of ``github`` become ``GITHUB_*`` variables is actions/runner's list.
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import TYPE_CHECKING, cast

from cloche.expressions import CaseSensitiveDict, to_string
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloche.events import Conclusion
    from cloche.execution.gitstate import EventInfo
    from cloche.expressions import Value
    from cloche.workflow.model import Workflow

SERVER = "https://github.com"
RUNNER_NAME = "cloche"
HOME = "/home/runner"
WORK = f"{HOME}/work"
TEMP = f"{WORK}/_temp"
TOOL_CACHE = "/opt/hostedtoolcache"
EVENT_PATH = f"{TEMP}/_github_workflow/event.json"
COMMAND_FILES = f"{TEMP}/_runner_file_commands"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ARCHITECTURES = {"x86_64": "X64", "aarch64": "ARM64"}
_IN_ENVIRONMENT = frozenset(
    {
        "action",
        "action_path",
        "action_ref",
        "action_repository",
        "actor",
        "actor_id",
        "api_url",
        "base_ref",
        "env",
        "event_name",
        "event_path",
        "graphql_url",
        "head_ref",
        "job",
        "output",
        "path",
        "ref",
        "ref_name",
        "ref_protected",
        "ref_type",
        "repository",
        "repository_id",
        "repository_owner",
        "repository_owner_id",
        "retention_days",
        "run_attempt",
        "run_id",
        "run_number",
        "server_url",
        "sha",
        "state",
        "step_summary",
        "triggering_actor",
        "workflow",
        "workflow_ref",
        "workflow_sha",
        "workspace",
    }
)


def workspace(repository: str) -> str:
    """Return the guest's folder for the repository ``owner/name``."""
    name = repository.rpartition("/")[2]
    return f"{WORK}/{name}/{name}"


@record
class RunNumbers:
    """``github.run_id``, ``run_number`` and ``run_attempt``."""

    run_id: int
    run_number: int = 1
    run_attempt: int = 1


def github_context(
    workflow: Workflow, event: EventInfo, numbers: RunNumbers, token: str = ""
) -> dict[str, Value]:
    """Return the ``github`` context of a run, without what is a job's or a step's own."""
    payload = cast("Mapping[str, Value]", event.payload)
    return {
        "actor": event.actor,
        "actor_id": _id(payload, "sender"),
        "api_url": "https://api.github.com",
        "base_ref": event.base_ref,
        "event": payload,
        "event_name": event.name,
        "event_path": EVENT_PATH,
        "graphql_url": "https://api.github.com/graphql",
        "head_ref": event.head_ref,
        "ref": event.ref,
        "ref_name": event.ref_name,
        "ref_protected": False,
        "ref_type": event.ref_type,
        "repository": event.repository,
        "repository_id": _id(payload, "repository"),
        "repository_owner": event.owner,
        "repository_owner_id": _id(payload, "repository", "owner"),
        "repositoryUrl": f"git://github.com/{event.repository}.git",
        "retention_days": "90",
        "run_attempt": str(numbers.run_attempt),
        "run_id": str(numbers.run_id),
        "run_number": str(numbers.run_number),
        "secret_source": "Actions",
        "server_url": SERVER,
        "sha": event.sha,
        "token": token,
        "triggering_actor": event.actor,
        "workflow": workflow.display_name,
        "workflow_ref": f"{event.repository}/{workflow.path}@{event.ref}",
        "workflow_sha": event.sha,
        "workspace": workspace(event.repository),
    }


def _id(payload: Mapping[str, Value], *keys: str) -> str:
    """Return the id of an object in the payload, 0 where a made-up payload has none."""
    value: Value = payload
    for key in (*keys, "id"):
        value = value.get(key) if isinstance(value, dict) else None
    return to_string(value) if isinstance(value, int | float | str) else "0"


def runner_context(event: EventInfo, *, debug: bool = False) -> dict[str, Value]:
    """Return the ``runner`` context."""
    context: dict[str, Value] = {
        "arch": _ARCHITECTURES.get(os.uname().machine, "X64"),
        "environment": "self-hosted",
        "name": RUNNER_NAME,
        "os": "Linux",
        "temp": TEMP,
        "tool_cache": TOOL_CACHE,
        "workspace": workspace(event.repository).rpartition("/")[0],
    }
    return context | ({"debug": "1"} if debug else {})


def strategy_context(
    *, fail_fast: bool = True, index: int = 0, total: int = 1, max_parallel: int | None = None
) -> dict[str, Value]:
    """Return the ``strategy`` context of leg ``index`` of ``total``."""
    return {
        "fail-fast": fail_fast,
        "job-index": float(index),
        "job-total": float(total),
        "max-parallel": float(max_parallel or total),
    }


@record
class NeedResult:
    """What a finished job is to those that need it."""

    result: Conclusion
    outputs: Mapping[str, str] = field(default_factory=dict)

    def as_value(self) -> Value:
        """Return the entry of the ``needs`` context."""
        return {"result": self.result, "outputs": dict(self.outputs)}


def env_context(env: Mapping[str, str]) -> CaseSensitiveDict:
    """Return the ``env`` context: on Linux case counts in it."""
    return CaseSensitiveDict(env)


def base_environment() -> dict[str, str]:
    """Return what every program of a job finds in its environment before anyone asked for more."""
    return {
        "DEBIAN_FRONTEND": "noninteractive",
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "PATH": SYSTEM_PATH,
        "RUNNER_USER": "runner",
        "USER": "runner",
    }


def program_environment(
    base: Mapping[str, str],
    env: Mapping[str, str],
    path: Sequence[str],
    github: Mapping[str, Value],
    runner: Mapping[str, Value],
) -> dict[str, str]:
    """Return the whole environment of a step's program.

    ``path`` holds the folders of GITHUB_PATH, the latest last. The default variables come last: a workflow
    cannot change GITHUB_* and RUNNER_* ones.
    """
    whole = {"CI": "true", **base, **env}
    if path:
        whole["PATH"] = ":".join([*reversed(path), *filter(None, [whole.get("PATH")])])
    for name, value in github.items():
        if name in _IN_ENVIRONMENT and isinstance(value, str | bool):
            whole[f"GITHUB_{name.upper()}"] = to_string(value)
    for name, value in runner.items():
        whole[f"RUNNER_{name.upper()}"] = to_string(value)
    whole["GITHUB_ACTIONS"] = "true"
    return whole
