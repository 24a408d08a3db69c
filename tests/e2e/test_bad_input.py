"""What is wrong is said in one go, with its place and what to do, before any VM is asked for."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from cloche.session import ActiveSession, SessionRegistry
from tests.e2e.place import one_job

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.place import Ended, Place

FILE = ".github/workflows/test.yml"
JOB = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n"


def assert_refused(ended: Ended, *said: str, code: int = 2) -> None:
    """Nothing was started, and standard error says these, without a traceback."""
    assert ended.code == code, ended.stderr
    assert ended.stdout == ""
    assert "Allocated" not in ended.stderr
    assert "Traceback" not in ended.stderr
    for text in said:
        assert text in ended.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("on: push\njobs:\n  a: [\n", f"{FILE}:4:1: The YAML is not valid", id="broken-yaml"),
        pytest.param("on: push\njobs:\n\ta: 1\n", "use spaces", id="tab"),
        pytest.param(
            f"{JOB}    steps:\n      - run: x\n        shel: bash\n",
            f"{FILE}:7:9: Unexpected value 'shel'\n  hint: did you mean `shell`?",
            id="unknown-key",
        ),
        pytest.param(
            f"{JOB}    steps: [{{run: x}}]\n    strategy: {{matrix: {{os: 3}}}}\n",
            f"{FILE}:6:29: Unexpected value '3'",
            id="bad-matrix",
        ),
        pytest.param(
            f"{JOB}    steps: [{{run: x}}]\n    strategy:\n      matrix: ${{{{ fromJSON(vars.LEGS) }}}}\n",
            f"{FILE}:7:15: Error parsing fromJson",
            id="bad-matrix-expression",
        ),
        pytest.param(
            f"{JOB}    steps:\n      - run: x\n        shell: fish\n",
            f"{FILE}:7:16: Invalid shell option",
            id="unknown-shell",
        ),
        pytest.param(
            f"{JOB}    services: {{db: {{image: postgres}}}}\n    steps: [{{run: x}}]\n",
            f"{FILE}:5:5: `services` is not carried out by Cloche yet",
            id="services",
        ),
        pytest.param(
            f"{JOB}    steps:\n      - uses: actions/setup-node@v4\n",
            f"{FILE}:6:15: The action `actions/setup-node@v4` is not carried out by Cloche yet",
            id="action",
        ),
        pytest.param(
            f"{JOB}    steps:\n      - run: echo ${{{{ nope.x }}}}\n",
            f"{FILE}:6:14: Unrecognized named-value: 'nope'",
            id="expression",
        ),
        pytest.param(
            JOB.replace("ubuntu", "windows") + "    steps: [{run: x}]\n",
            f"{FILE}:4:14: Job 'a' cannot run: no image serves the label 'windows-latest'",
            id="windows",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_refused_with_its_place(place: Place, text: str, said: str) -> None:
    place.workflow(text)
    assert_refused(place.run("run", "--output", "jsonl"), f"error: {said}" if said.startswith(FILE) else said)


def test_everything_that_is_wrong_is_said_at_once(place: Place) -> None:
    place.workflow(JOB.replace("ubuntu", "windows") + "    steps: [{run: x}]\n", "windows.yml")
    place.workflow(JOB.replace("ubuntu", "amiga") + "    steps: [{run: x}]\n", "amiga.yml")
    place.steps("- run: echo fine")
    assert_refused(place.run("run", "--output", "jsonl"), "amiga.yml:4:14: ", "windows.yml:4:14: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope.yml"], "there is no workflow file 'nope.yml'\n  hint: .github/workflows has: test.yml"),
        (["-e", "release"], "no workflow in .github/workflows is triggered by release"),
        (["test.yml", "-e", "release"], "not triggered by release\n  hint: its events: push"),
        (["-j", "nope"], "has no job 'nope'\n  hint: its jobs: job"),
        (["--matrix", "os:beos"], "no leg of any job has os: beos"),
        (["--matrix", "os=beos"], "'os=beos' is not NAME:VALUE"),
        (["--input", "a=b"], "inputs (a) belong to the event workflow_dispatch"),
        (["--var", "a"], "'a' is not NAME=VALUE"),
        (["-s", "TOKEN=x"], "a secret's value does not belong on a command line"),
        (["-s", "NOT_THERE"], "there is no environment variable NOT_THERE"),
        (["--secret-file", "README.md"], "README.md:1: expected NAME=value"),
        (["--event-path", "README.md"], "the event file README.md is no JSON"),
        (["--cpus", "0"], "0 is not in the range"),
        (["--memory", "much"], "--memory is 'much'; expected a size"),
        (["--vm", "amiga"], "there is no provider 'amiga'\n  hint: --vm auto, qemu, sandbox or fake"),
        (["-C", "nowhere"], "Directory 'nowhere' does not exist"),
        (["--frobnicate"], "No such option '--frobnicate'"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_refused(place: Place, arguments: list[str], said: str) -> None:
    place.steps("- run: echo hello")
    assert_refused(place.run("run", "--output", "jsonl", *arguments), said)


def test_a_repository_without_workflows(place: Place) -> None:
    assert_refused(place.run("run"), "there is no workflow in", "hint: cloche run FILE")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config/cloche/config.toml", "[vm]\ncpus = 'many'\n", "config.toml:2:1: [vm] cpus is 'many'"),
        ("repository/cloche.toml", "[run]\nmemory = '1T'\n", "cloche.toml:2:1: [run] memory asks for 1 TiB"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_refused(place: Place, name: str, text: str, said: str) -> None:
    place.steps("- run: echo hello")
    file = place.folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert_refused(place.run("run", "--output", "jsonl"), said)


def test_a_secret_in_what_is_wrong_is_masked(place: Place) -> None:
    place.workflow(JOB.replace("ubuntu-latest", "${{ github.token }}") + "    steps: [{run: x}]\n")
    ended = place.run("run", "-s", "GITHUB_TOKEN", env={"GITHUB_TOKEN": "ghs_0123456789"})
    assert_refused(ended, "no image serves the label '***'")
    assert "ghs_0123456789" not in ended.stderr


def test_jobs_that_no_image_serves_are_skipped_when_asked(place: Place) -> None:
    job = "  {0}: {{runs-on: {1}, needs: [{2}], if: {3}, steps: [{{run: echo {0}}}]}}\n"
    jobs = [
        ("windows", "windows-latest", "", "success()"),
        ("after", "ubuntu-latest", "windows", "success()"),
        ("always", "ubuntu-latest", "windows", "always()"),
    ]
    place.workflow("on: push\njobs:\n" + "".join(job.format(*values) for values in jobs))
    ended = place.run("run", "--output", "jsonl", "--skip-unsupported")

    assert ended.code == 0
    assert {e["job"]: e["conclusion"] for e in ended.of("job.finished")} == {
        "windows": "skipped",
        "after": "skipped",
        "always": "success",
    }
    (warning,) = ended.of("run.notice", level="warning")
    assert warning["message"] == "Job 'windows': skipped: no image serves the label 'windows-latest'"
    plain = place.run("run", "--skip-unsupported")
    assert warning["message"] in plain.stdout


# --- no VM to be had


@pytest.fixture
def without_qemu(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has git and nothing else."""
    (tmp_path / "bin").mkdir()
    git = shutil.which("git")
    assert git
    (tmp_path / "bin" / "git").symlink_to(git)
    return {"PATH": str(tmp_path / "bin")}


@pytest.mark.parametrize("provider", ["auto", "qemu"])
def test_without_qemu(place: Place, without_qemu: dict[str, str], provider: str) -> None:
    place.steps("- run: echo hello")
    ended = place.run("run", "--vm", provider, "--output", "jsonl", env=without_qemu)
    assert_refused(ended, "qemu-system-x86_64 is not installed", "apt-get install", code=3)


def test_the_doctor_says_that_qemu_is_missing(place: Place, without_qemu: dict[str, str]) -> None:
    ended = place.run("doctor", "--json", env=without_qemu)
    assert ended.code == 3
    told = json.loads(ended.stdout)
    assert not told["able"]
    (qemu,) = (finding for finding in told["findings"] if finding["name"] == "qemu")
    assert (qemu["verdict"], qemu["mend"].split()[:2]) == ("missing", ["apt-get", "install"])


@pytest.mark.sandbox
def test_without_the_image(sandbox: Place) -> None:
    sandbox.steps("- run: echo hello")
    ended = sandbox.run("run", "--output", "jsonl", "--image", "nope")
    assert (ended.code, ended.conclusion) == (3, "failure")
    assert not ended.of("session.created")
    assert "there is no image named 'nope'\n  hint: cloche image build" in ended.stderr


async def test_the_gravest_of_several_ends_decides(place: Place) -> None:
    """Another process has one of two places: of two workflows one fails, the other gets no VM."""
    registry = SessionRegistry(place.folder / "runtime" / "cloche" / "sessions")
    slot = await registry.add(ActiveSession("sess-0", "another", os.getpid(), since=0.0), limit=2)
    for name in ("one", "two"):
        place.workflow(one_job("- run: exit 1", name=name), f"{name}.yml")
    ended = place.run("run", "--output", "jsonl", env={"CLOCHE_SESSION_MAX_CONCURRENT": "2"})
    slot.release()

    assert ended.code == 3
    assert len(ended.of("run.started")) == 2
    assert ended.one("step.finished")["conclusion"] == "failure"
    assert "the limit of 2 concurrent sessions is reached" in ended.stderr
    assert "sess-0 (workflow 'another'" in ended.stderr
