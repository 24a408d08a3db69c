"""Contexts and default variables.

https://docs.github.com/en/actions/reference/workflows-and-actions/variables#default-environment-variables
"""

from __future__ import annotations

from cloche.execution.contexts import (
    RunNumbers,
    base_environment,
    env_context,
    github_context,
    program_environment,
    runner_context,
    strategy_context,
    workspace,
)
from cloche.execution.gitstate import EventInfo
from cloche.expressions import Scope, parse
from cloche.workflow.parse import parse_workflow

WORKFLOW = parse_workflow(
    "name: CI\non: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: x}]}}", ".github/workflows/ci.yml"
)
EVENT = EventInfo(
    name="pull_request",
    sha="1" * 40,
    ref="refs/pull/7/merge",
    repository="octo/hello.world",
    actor="mona",
    head_ref="topic",
    base_ref="main",
    payload={"repository": {"id": 42, "owner": {"id": 43}}, "number": 7},
)
DOCUMENTED = """
    GITHUB_ACTIONS GITHUB_ACTOR GITHUB_ACTOR_ID GITHUB_API_URL GITHUB_BASE_REF GITHUB_EVENT_NAME GITHUB_EVENT_PATH
    GITHUB_GRAPHQL_URL GITHUB_HEAD_REF GITHUB_REF GITHUB_REF_NAME GITHUB_REF_PROTECTED GITHUB_REF_TYPE
    GITHUB_REPOSITORY GITHUB_REPOSITORY_ID GITHUB_REPOSITORY_OWNER GITHUB_REPOSITORY_OWNER_ID
    GITHUB_RETENTION_DAYS GITHUB_RUN_ATTEMPT GITHUB_RUN_ID GITHUB_RUN_NUMBER GITHUB_SERVER_URL GITHUB_SHA
    GITHUB_WORKFLOW GITHUB_WORKFLOW_REF GITHUB_WORKFLOW_SHA GITHUB_WORKSPACE RUNNER_ARCH RUNNER_ENVIRONMENT
    RUNNER_NAME RUNNER_OS RUNNER_TEMP RUNNER_TOOL_CACHE CI
"""


def environment(**env: str) -> dict[str, str]:
    github = github_context(WORKFLOW, EVENT, RunNumbers(5, 6, 7), "token")
    return program_environment(base_environment(), env, ["/one", "/two"], github, runner_context(EVENT))


def test_every_documented_variable_is_there() -> None:
    assert set(DOCUMENTED.split()) <= environment().keys()


def test_what_they_hold() -> None:
    found = environment()

    assert found["GITHUB_WORKFLOW_REF"] == "octo/hello.world/.github/workflows/ci.yml@refs/pull/7/merge"
    assert found["GITHUB_WORKSPACE"] == "/home/runner/work/hello.world/hello.world"
    assert found["RUNNER_WORKSPACE"] == "/home/runner/work/hello.world"
    assert (found["GITHUB_RUN_ID"], found["GITHUB_RUN_NUMBER"], found["GITHUB_RUN_ATTEMPT"]) == (
        "5",
        "6",
        "7",
    )
    assert (found["GITHUB_REPOSITORY_ID"], found["GITHUB_REPOSITORY_OWNER_ID"]) == ("42", "43")
    assert (found["GITHUB_HEAD_REF"], found["GITHUB_BASE_REF"], found["GITHUB_ACTOR_ID"]) == (
        "topic",
        "main",
        "0",
    )
    assert found["GITHUB_REF_PROTECTED"] == "false"
    assert (found["HOME"], found["CI"]) == ("/home/runner", "true")


def test_the_token_and_the_event_are_in_no_variable() -> None:
    found = environment()

    assert "GITHUB_TOKEN" not in found
    assert "GITHUB_EVENT" not in found
    assert "token" not in found.values()


def test_the_path_is_the_latest_first() -> None:
    assert environment()["PATH"].startswith("/two:/one:/usr/local/sbin:")
    assert environment(PATH="/mine")["PATH"] == "/two:/one:/mine"
    assert environment(PATH="")["PATH"] == "/two:/one"


def test_case_counts_in_env_only() -> None:
    scope = Scope({"env": env_context({"Name": "1"}), "runner": runner_context(EVENT)})

    assert parse("env.Name").evaluate(scope) == "1"
    assert parse("env.NAME").evaluate(scope) is None
    assert parse("RUNNER.Os").evaluate(scope) == "Linux"


def test_debug_is_there_only_when_on() -> None:
    assert "debug" not in runner_context(EVENT)
    assert runner_context(EVENT, debug=True)["debug"] == "1"


def test_strategy() -> None:
    assert strategy_context(index=1, total=3) == {
        "fail-fast": True,
        "job-index": 1.0,
        "job-total": 3.0,
        "max-parallel": 3.0,
    }


def test_the_workspace_is_named_for_the_repository() -> None:
    assert workspace("octo/hello") == "/home/runner/work/hello/hello"
