"""What bounds a run from the command line and the repository, and the scripts around its jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.place import one_job

if TYPE_CHECKING:
    from tests.e2e.place import Ended, Place

MIB = 1024 * 1024
CLOCHE_TOML = """
[run]
time = "1h"
stop_on_failure = true

[setup]
run = "echo MADE=$PWD/made >> $GITHUB_ENV; mkdir made"

[cleanup]
run = "echo cleaning after ${{ job.status }}; rm -r made"
"""


def limit(ended: Ended) -> dict[str, object]:
    """The one limit that a run met."""
    told = ended.one("limit.reached")
    return {name: told[name] for name in ("which", "limit", "job", "step")}


def test_a_run_ends_when_its_time_is_up(place: Place) -> None:
    place.steps("- run: echo up; sleep inf\n- {run: echo after all, if: always()}")
    ended = place.run("run", "--output", "jsonl", "--time", "1s")
    assert (ended.code, ended.conclusion) == (1, "failure")
    assert limit(ended) == {"which": "time", "limit": 1.0, "job": None, "step": None}
    assert "The run has exceeded the maximum execution time of 1.0 s." in ended.messages
    assert ended.output(step=2) == "after all\n"


def test_a_repository_has_its_scripts_and_its_wishes(place: Place) -> None:
    place.write("cloche.toml", CLOCHE_TOML)
    place.steps("- run: test -d $MADE; exit 3")
    ended = place.run("run", "--output", "jsonl")
    assert ended.code == 1
    assert ended.steps == {
        "Set up (cloche.toml)": "success",
        "Run test -d $MADE; exit 3": "failure",
        "Clean up (cloche.toml)": "success",
    }
    assert ended.output() == "cleaning after failure\n"


def test_a_repository_cannot_give_itself_more_time(place: Place) -> None:
    place.write("cloche.toml", CLOCHE_TOML)
    place.steps("- run: echo")
    refused = place.run("run", env={"CLOCHE_LIMITS_TIME": "10m"})
    assert refused.code == 2
    assert "cloche.toml:3:1: [run] time asks for 1 h 0 min; this machine allows 10 min 0 s" in refused.stderr


def test_the_size_a_label_asks_for_is_granted_or_refused(place: Place) -> None:
    place.workflow(one_job("- run: echo", job="").replace("ubuntu-latest", "[cloche-4cpu-1gb]"))
    refused = place.run("run")
    assert refused.code == 2
    assert "asks for 4 vCPUs ('cloche-4cpu-1gb'); this machine allows 2 vCPUs" in refused.stderr
    assert "test.yml:" in refused.stderr
    assert place.run("run", env={"CLOCHE_LIMITS_CPUS": "4"}).code == 0
    settled = place.run("run", "--output", "jsonl", "--cpus", "1")
    assert "Job 'job' asks for 4 vCPUs ('cloche-4cpu-1gb'); --cpus gives 1 vCPU" in settled.messages


def test_the_first_job_that_fails_stops_the_run(place: Place) -> None:
    place.workflow("""
on: push
jobs:
  slow: {runs-on: ubuntu-latest, steps: [{run: sleep inf}]}
  busy: {runs-on: ubuntu-latest, steps: [{run: sleep inf, timeout-minutes: 5}]}
""")
    ended = place.run("run", "--output", "jsonl", "--stop-on-failure", env={"CLOCHE_RUN_STEP_TIMEOUT": "1s"})
    assert (ended.code, ended.conclusion) == (1, "failure")
    assert {event["job"]: event["conclusion"] for event in ended.of("job.finished")} == {
        "slow": "failure",
        "busy": "cancelled",
    }


@pytest.mark.sandbox
def test_a_flood_is_cut_off_at_its_limit(sandbox: Place) -> None:
    sandbox.write("cloche.toml", '[cleanup]\nrun = "echo tidy > tidied"\n')
    sandbox.steps("- run: yes 0123456789\n- {run: echo after all, if: always()}")
    ended = sandbox.run("run", "--output", "jsonl", "--output-limit", "2MiB")
    assert (ended.code, ended.conclusion) == (1, "failure")
    assert limit(ended) == {"which": "output", "limit": 2.0 * MIB, "job": "job", "step": 1}
    assert len(ended.output()) == pytest.approx(2 * MIB, abs=20)
    assert ended.steps == {
        "Run yes 0123456789": "cancelled",
        "Run echo after all": "success",
        "Clean up (cloche.toml)": "success",
    }


@pytest.mark.sandbox
def test_scripts_run_in_the_guest_as_the_jobs_user(sandbox: Place) -> None:
    sandbox.write("cloche.toml", "[setup]\nrun = 'id -u; trap \"\" TERM; hostname > /tmp/host'\n")
    sandbox.steps("- run: id -u; test -e /tmp/host")
    ended = sandbox.run("run", "--output", "jsonl")
    assert ended.code == 0, ended.messages
    first, second = ended.output().split()
    assert first == second
