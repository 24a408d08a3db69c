"""Which workflows, jobs and legs a command line runs, for which event and with which values."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.place import DEADLINE, one_job

if TYPE_CHECKING:
    from tests.e2e.place import Ended, Place

DISPATCH = """
name: Dispatch
on:
  workflow_dispatch:
    inputs:
      who: {default: world}
      loud: {type: boolean}
jobs:
  job:
    runs-on: ubuntu-latest
    steps:
      - run: echo "hello ${{ inputs.who }} loud=${{ inputs.loud }} event=${{ github.event_name }}"
"""
JOBS = """
on: push
jobs:
  a: {runs-on: ubuntu-latest, steps: [{run: echo a}]}
  b: {runs-on: ubuntu-latest, needs: a, steps: [{run: echo b}]}
  c: {runs-on: ubuntu-latest, steps: [{run: echo c}]}
"""
MATRIX = """
on: push
jobs:
  job:
    runs-on: ubuntu-latest
    strategy: {matrix: {os: [linux, beos], n: [1, 2]}}
    steps: [{run: "echo ${{ matrix.os }} ${{ matrix.n }}"}]
"""


def workflows(ended: Ended) -> set[str]:
    """The names of the workflows that ran, all of them well."""
    assert ended.code == 0, ended.stderr
    assert {event["conclusion"] for event in ended.of("run.finished")} == {"success"}
    return {event["workflow"] for event in ended.of("run.started")}


def jobs(ended: Ended) -> set[str]:
    """The jobs and legs that ran."""
    assert ended.code == 0, ended.stderr
    return {event["leg"] or event["job"] for event in ended.of("job.finished")}


def test_without_a_name_all_that_a_push_triggers_run(place: Place) -> None:
    for name, on in (("one", "push"), ("two", "{push: {branches: [main]}}"), ("release", "release")):
        place.workflow(one_job("- run: echo", name=name).replace("on: push", f"on: {on}"), f"{name}.yaml")
    place.workflow(
        one_job("- run: echo", name="other").replace("push", "{push: {branches: [dev]}}"), "other.yml"
    )

    assert workflows(place.run("run", "--output", "jsonl")) == {"one", "two"}
    assert workflows(place.run("run", "--output", "jsonl", "-e", "release")) == {"release"}


def test_paths_of_the_last_commit_choose_too(place: Place) -> None:
    for name, path in (("docs", "docs/**"), ("src", "src/**")):
        text = one_job("- run: echo", name=name).replace("push", f"{{push: {{paths: ['{path}']}}}}")
        place.workflow(text, f"{name}.yml")
    place.commit("workflows")
    place.write("src/a", "1")
    place.commit("source")

    assert workflows(place.run("run", "--output", "jsonl")) == {"src"}


@pytest.mark.parametrize("name", ["dispatch.yml", "dispatch", ".github/workflows/dispatch.yml"])
def test_a_workflow_by_its_name_or_path(place: Place, name: str) -> None:
    place.workflow(DISPATCH, "dispatch.yml")
    place.steps("- run: exit 1")
    inner = place.repository / "some" / "where"
    inner.mkdir(parents=True)

    assert workflows(place.run("run", "--output", "jsonl", name)) == {"Dispatch"}
    assert workflows(place.run("run", "--output", "jsonl", name, cwd=inner)) == {"Dispatch"}
    elsewhere = place.run("run", "--output", "jsonl", name, "-C", str(place.repository), cwd=place.folder)
    assert workflows(elsewhere) == {"Dispatch"}


def test_a_named_workflow_runs_whatever_its_filters_say(place: Place) -> None:
    place.workflow(one_job("- run: echo").replace("push", "{push: {branches: [dev]}}"))
    ended = place.run("run", "--output", "jsonl", "test")
    assert workflows(ended) == {"Test"}
    assert "has filters that this push of refs/heads/main does not pass" in ended.stderr


def test_inputs(place: Place) -> None:
    place.workflow(DISPATCH)
    ended = place.run("run", "test", "--output", "jsonl", "--input", "who=you", "--input", "loud=true")
    assert ended.output() == "hello you loud=true event=workflow_dispatch\n"
    assert place.run("run", "test", "--output", "jsonl").output().startswith("hello world loud=false")
    wrong = place.run("run", "test", "--input", "loud=perhaps")
    assert wrong.code == 2
    assert "loud" in wrong.stderr


def test_an_event_and_its_payload(place: Place) -> None:
    payload = {"action": "closed", "number": 7, "pull_request": {"title": "Mend it", "base": {"ref": "main"}}}
    file = place.write("event.json", json.dumps(payload))
    step = '- run: echo "${{ github.event.pull_request.title }} ${{ github.ref }} ${{ github.base_ref }}"'
    place.workflow(one_job(step).replace("push", "{pull_request: {types: [closed]}}"))

    ended = place.run("run", "--output", "jsonl", "-e", "pull_request", "--event-path", str(file))
    assert ended.output() == "Mend it refs/pull/7/merge main\n"
    assert place.run("run", "-e", "pull_request").code == 2  # made up here it would be an opened one


def test_jobs_and_those_they_need(place: Place) -> None:
    place.workflow(JOBS)
    assert jobs(place.run("run", "--output", "jsonl", "-j", "b")) == {"a", "b"}
    assert jobs(place.run("run", "--output", "jsonl", "-j", "a", "-j", "c")) == {"a", "c"}


def test_of_several_workflows_those_that_have_the_job(place: Place) -> None:
    place.workflow(JOBS, "jobs.yml")
    place.steps("- run: exit 1")
    assert jobs(place.run("run", "--output", "jsonl", "-j", "c")) == {"c"}
    none = place.run("run", "-j", "nope")
    assert none.code == 2
    assert "none of these workflows has 'nope'\n  hint: their jobs: a, b, c, job" in none.stderr


def test_legs_of_a_matrix(place: Place) -> None:
    place.workflow(MATRIX)
    assert jobs(place.run("run", "--output", "jsonl", "--matrix", "os:linux")) == {"linux, 1", "linux, 2"}
    both = place.run("run", "--output", "jsonl", "--matrix", "os:beos", "--matrix", "n:2")
    assert both.output() == "beos 2\n"


def test_variables_and_environment(place: Place) -> None:
    place.steps('- run: echo "${{ vars.WHERE }} $GREETING"')
    ended = place.run("run", "--output", "jsonl", "--var", "WHERE=here=there", "--env", "GREETING=a b")
    assert ended.output() == "here=there a b\n"


def test_ignored_files_go_along_when_included(place: Place) -> None:
    place.write(".gitignore", "built\n")
    place.write("built/it", "from here\n")
    place.steps("- uses: actions/checkout@v4\n- run: cat built/it")
    assert place.run("run", "--output", "jsonl").code == 1
    assert "from here" in place.run("run", "--output", "jsonl", "--include", "built").output()
    outside = place.run("run", "--output", "jsonl", "--include", "../home")
    assert outside.code == 1
    assert any("outside the repository" in message for message in outside.messages)


def test_a_folder_within_another_repository_is_the_repository(place: Place) -> None:
    place.git("remote", "add", "origin", "https://github.com/octo/outer.git")
    steps = "- uses: actions/checkout@v4\n- run: pwd; ls; echo ${{ github.repository }} ${{ github.ref }}"
    place.write("examples/hello/.github/workflows/hello.yml", one_job(steps))
    place.write("examples/hello/only-this", "")
    place.commit("two")
    inner = place.repository / "examples" / "hello"

    for ended in (
        place.run("run", "--output", "jsonl", "-C", "examples/hello"),
        place.run("run", "--output", "jsonl", cwd=inner),
    ):
        assert ended.code == 0
        assert ended.output(step=2).splitlines() == [
            "/home/runner/work/hello/hello",
            "only-this",
            "local/hello refs/heads/main",
        ]
        assert "no commit" in ended.output(step=1)


@pytest.mark.sandbox
def test_a_checkout_has_its_history(sandbox: Place) -> None:
    sandbox.write("untracked", "")
    sandbox.steps(
        "- uses: actions/checkout@v4\n- run: git log --format=%s; git status --short; git rev-parse HEAD"
    )
    ended = sandbox.run("run", "--output", "jsonl")
    head = sandbox.git("rev-parse", "HEAD")
    assert ended.output(step=2).splitlines() == ["one", "?? .github/", "?? untracked", head]


def test_options_and_help_can_be_read(place: Place) -> None:
    for arguments in (["-h"], ["run", "--help"], ["--version"], ["image", "-h"], ["gc", "--help"]):
        ended = place.run(*arguments)
        assert (ended.code, ended.stderr) == (0, "")


def test_started_as_a_module(place: Place) -> None:
    place.steps("- run: echo hello")
    command = [sys.executable, "-m", "cloche.cli", "run", "--vm", "fake", "-q"]
    ended = subprocess.run(
        command, cwd=place.repository, env=place.env, capture_output=True, timeout=DEADLINE, check=False
    )
    assert ended.returncode == 0
