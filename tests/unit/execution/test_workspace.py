"""The workspace of a run that goes on: the host's changes come, a step's stay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cloche.events import Notice, RunRewound
from tests.unit.execution.test_rewind import Lab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloche.execution.resume import Side
    from tests.unit.execution.conftest import Repository

FILES = {
    "changed": "old\n", "removed": "old\n", "kept": "old\n", "both": "old\n", "step-removes": "old\n",
    "same": "old\n", "run.sh": "echo hello\n", "folder/inner": "old\n", ".gitignore": "ignored\n",
}  # fmt: skip
LOOK = (
    "for f in changed removed kept both step-removes same made new folder/inner; do echo $f $(cat $f); done"
)


@pytest.fixture
async def lab(tmp_path: Path, repository: Repository) -> AsyncIterator[Lab]:
    repository.commit("first", FILES)
    repository.path.rename(tmp_path / "moved")
    made = Lab(tmp_path)
    made.root.rmdir()
    (tmp_path / "moved").rename(made.root)
    async with made.manager:
        yield made


def workflow(*scripts: str) -> str:
    lines = "".join(f"      - run: {script}\n" for script in scripts)
    head = "on: push\njobs:\n  job:\n    runs-on: ubuntu-latest\n    steps:\n"
    return f"{head}      - uses: actions/checkout@v4\n{lines}"


STEP = "echo step > both; echo step > made; rm step-removes; echo both > same"


async def go_on(lab: Lab, side: Side | None = None, look: str = LOOK) -> dict[str, str]:
    """Run to a failure, change files on the host, go on; the files that the next step sees."""
    await lab.run(workflow(STEP, "exit 1"))
    for name in ("changed", "both", "step-removes"):
        (lab.root / name).write_text("host\n")
    (lab.root / "same").write_text("both\n")
    (lab.root / "new").write_text("host\n")
    (lab.root / "ignored").write_text("host\n")
    (lab.root / "removed").unlink()
    await lab.rewind(lab.kept.failed_cut, workflow(STEP, look), side)
    lines = [line.partition(" ") for line in lab.output().splitlines()]
    return {name: content for name, _, content in lines}


SETTLED = {
    "changed": "host", "removed": "", "kept": "old", "same": "both", "made": "step", "new": "host",
    "folder/inner": "old",
}  # fmt: skip


async def test_what_only_the_host_changed_comes_and_what_a_step_changed_too_is_told(lab: Lab) -> None:
    seen = await go_on(lab)
    assert {name: seen[name] for name in SETTLED} == SETTLED
    assert (seen["both"], seen["step-removes"]) == ("step", "")
    warnings = [event.message for event in lab.said(Notice) if event.level == "warning"]
    assert len(warnings) == 2
    assert "'both' was changed both by an earlier step and in the repository" in str(warnings)
    assert lab.said(RunRewound)[0].files == 3


async def test_ours_is_the_hosts(lab: Lab) -> None:
    seen = await go_on(lab, "ours")
    assert {name: seen[name] for name in SETTLED} == SETTLED
    assert (seen["both"], seen["step-removes"]) == ("host", "host")
    assert "both by" not in str(lab.events)


async def test_theirs_is_the_steps_without_a_word(lab: Lab) -> None:
    seen = await go_on(lab, "theirs")
    assert (seen["both"], seen["step-removes"], seen["changed"]) == ("step", "", "host")
    assert "both by" not in str(lab.events)


async def test_nothing_changed_nothing_sent(lab: Lab) -> None:
    await lab.run(workflow(STEP, "exit 1"))
    os.utime(lab.root / "kept", (1, 1))
    await lab.rewind(lab.kept.failed_cut, workflow(STEP, "true"))
    assert lab.said(RunRewound)[0].files == 0


async def test_without_a_checkout_nothing_is_sent(lab: Lab) -> None:
    await lab.run(workflow("exit 1").replace("uses: actions/checkout@v4", "run: echo one"))
    (lab.root / "changed").write_text("host\n")
    after = workflow("ls").replace("uses: actions/checkout@v4", "run: echo one")
    await lab.rewind(lab.kept.failed_cut, after)
    assert lab.said(RunRewound)[0].files == 0
    assert lab.output() == ""


async def test_what_was_sent_once_counts_for_the_next_time(lab: Lab) -> None:
    await lab.run(workflow("exit 1"))
    (lab.root / "changed").write_text("first\n")
    await lab.rewind(lab.kept.failed_cut, workflow("cat changed; exit 1"))
    again = lab.store.runs()[0]
    (lab.root / "changed").write_text("second\n")
    await lab.rewind(again.failed_cut, workflow("cat changed"))
    assert lab.output() == "second\n"
    assert not [event for event in lab.said(Notice) if event.level == "warning"]


async def test_links_modes_and_kinds_follow(lab: Lab) -> None:
    await lab.run(workflow("exit 1"))
    (lab.root / "changed").unlink()
    (lab.root / "changed").symlink_to("both")
    (lab.root / "run.sh").chmod(0o755)
    (lab.root / "kept").unlink()
    (lab.root / "kept").mkdir()
    (lab.root / "kept/now").write_text("in a folder\n")
    look = "cat changed; test -L changed && echo link; test -x run.sh && echo runs; cat kept/now"
    await lab.rewind(lab.kept.failed_cut, workflow(look))
    assert lab.output() == "old\nlink\nruns\nin a folder\n"


async def test_a_checkout_elsewhere_in_the_workspace_follows_too(lab: Lab) -> None:
    text = workflow("exit 1").replace("checkout@v4\n", "checkout@v4\n        with: {path: sub}\n")
    await lab.run(text)
    (lab.root / "changed").write_text("host\n")
    await lab.rewind(lab.kept.failed_cut, text.replace("exit 1", "cat sub/changed"))
    assert lab.output() == "host\n"


async def test_a_repository_that_cannot_be_read_fails_the_job_and_says_why(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.run(workflow("exit 1"))
    monkeypatch.setenv("PATH", "")
    result = await lab.rewind(lab.kept.failed_cut, workflow("true"))
    assert result.conclusion == "failure"
    assert "the changes of the repository cannot be sent: git is not installed" in str(lab.said(Notice))
