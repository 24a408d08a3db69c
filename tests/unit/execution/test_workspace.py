"""The workspace of a run that goes on: the host's changes come, a step's stay."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.events import Notice, RunRewound
from cloche.execution.checkout import Mark
from cloche.execution.workspace import _mark
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


@st.composite
def packed(draw: st.DrawFn) -> tuple[bytes, str, int]:
    """One entry as a guest packs it, the mark of it, and its size."""
    name = draw(st.text("ab/ü", min_size=1, max_size=300)).strip("/") or "a"
    entry, mark = tarfile.TarInfo(name), Mark()
    entry.mtime = draw(st.floats(0, 1e9))  # which takes an extended header
    content = b""
    if draw(st.booleans()):
        entry.type, entry.linkname = tarfile.SYMTYPE, draw(st.text("xy/", min_size=1, max_size=300))
        mark.take_link(entry.linkname)
    else:
        content = draw(st.binary(max_size=200)) * draw(st.sampled_from([0, 1, 700]))
        entry.mode, entry.size = draw(st.sampled_from([0o644, 0o755])), len(content)
        mark.begin_file(entry.mode)
        mark.take(content)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w|") as tar:
        tar.addfile(entry, io.BytesIO(content))
    return target.getvalue(), str(mark), len(content)


async def pieces(data: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    """Yield the data in pieces of these sizes, again and again."""
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


@given(packed(), st.lists(st.integers(1, 100_000), min_size=1, max_size=3))
async def test_a_file_of_the_guest_has_the_mark_that_it_has_here(
    entry: tuple[bytes, str, int], sizes: list[int]
) -> None:
    data, mark, size = entry
    sizes = [max(one, len(data) // 1000) for one in sizes]
    assert await _mark(pieces(data, sizes), size) == mark
    if size:
        assert await _mark(pieces(data, sizes), size - 1) == "", "larger than anything it could be"


@given(st.binary(max_size=3000))
async def test_nonsense_of_the_guest_has_no_mark_that_is_known(data: bytes) -> None:
    assert isinstance(await _mark(pieces(data, [512]), 10_000), str)
    head = packed_file(b"x" * 100)
    endless = head + data + bytes(200_000)
    assert await _mark(pieces(endless, [4096]), 10_000) in {"", str(marked(b"x" * 100))}


def packed_file(content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def marked(content: bytes) -> Mark:
    mark = Mark()
    mark.begin_file(0o644)
    mark.take(content)
    return mark


async def test_a_stream_without_an_end_is_not_read_for_ever() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield packed_file(b"x")
        while True:
            yield bytes(4096)

    assert await _mark(endless(), 10_000) == ""
