"""Runs that are kept: whole or not at all, found by their names, gone when their time is over."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import json
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cloche.errors import ProviderError, UsageError
from cloche.store.runs import Cut, CutFacts, RunFacts, RunStore, RunWriter

if TYPE_CHECKING:
    from pathlib import Path

DAY = 24 * 3600.0
KIB = 1024


class Clock:
    """A clock that stands where it is put."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> RunStore:
    return RunStore(tmp_path / "runs", keep=DAY, size=1000 * KIB, clock=clock)


def begin(store: RunStore, run_id: str = "run-aa11", began: float = 1000.0) -> RunWriter:
    return store.begin(RunFacts(run_id, "CI", "ci.yml", "/repository", began))


async def cut(writer: RunWriter, step: int = 1, *, at: float = 1000.0, size: int = 100, **facts: Any) -> Cut:
    about = {"job": "job", "leg": None, "job_name": "Job", "step_id": "", "step_name": "", **facts}
    made = CutFacts(number=0, at=at, step=step, **about)

    async def take(folder: Path) -> CutFacts:
        folder.mkdir(mode=0o700)
        (folder / "pages").write_bytes(bytes(size))
        return dataclasses.replace(made, size=size)

    return await writer.cut(made, {"about": step}, take)


async def test_what_is_kept_is_read_again(store: RunStore) -> None:
    writer = begin(store)
    first = await cut(writer, 1)
    second = await cut(writer, 2, step_name="Test", leg="3.11")
    writer.note_failure(second)
    writer.close("failure", keep=True)
    (run,) = store.runs()
    assert run.cuts == (first, second)
    assert run.cuts[1].checkpoint() == {"about": 2}
    assert (run.facts.conclusion, run.facts.ended, run.failed_cut, run.live) == (
        "failure", 1000.0, second, False,
    )  # fmt: skip


async def test_files_are_the_users_alone(store: RunStore) -> None:
    old = os.umask(0)
    try:
        writer = begin(store)
        await cut(writer)
        writer.close("failure", keep=True)
    finally:
        os.umask(old)
    ours = [path for path in store.folder.rglob("*") if path.name != "pages"]  # that is the provider's
    assert {stat.S_IMODE(path.stat().st_mode) for path in ours} == {0o700, 0o600}


@pytest.mark.parametrize("keep", [True, False])
async def test_a_run_without_cuts_or_need_of_them_leaves_nothing(store: RunStore, *, keep: bool) -> None:
    writer = begin(store)
    if not keep:
        await cut(writer)
    assert not writer.close("success", keep=keep)
    assert list(store.folder.iterdir()) == []


async def test_a_cut_that_fails_leaves_nothing(store: RunStore) -> None:
    writer = begin(store)

    async def fail(folder: Path) -> CutFacts:
        folder.mkdir()
        (folder / "pages").write_bytes(b"x")
        raise ProviderError("no room")

    with pytest.raises(ProviderError):
        await writer.cut(CutFacts(0, 0.0, "job", None, "job", 1, "", ""), {}, fail)
    assert store.runs() == []
    assert list((writer.folder / ".new").iterdir()) == []
    assert (await cut(writer)).folder.name == "0002"
    writer.close("failure", keep=True)


async def test_what_a_killed_process_left_of_a_cut_is_never_offered_and_goes(store: RunStore) -> None:
    writer = begin(store)
    whole = await cut(writer)
    for name in (".new/0002", ".gone/0003"):
        folder = writer.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pages").write_bytes(b"x")
    assert store.runs()[0].live
    assert store.expire() == [], "it goes on: hands off"
    assert (writer.folder / ".new/0002").exists()
    writer._lock.close()  # as its process dies
    (run,) = store.runs()
    assert (run.cuts, run.live, run.failed_cut) == ((whole,), False, whole)
    assert store.expire() == []
    assert sorted(path.name for path in writer.folder.iterdir() if path.name.startswith(".")) == []


def test_a_run_killed_as_it_began_goes(store: RunStore) -> None:
    writer = begin(store)
    writer._lock.close()
    (store.folder / ".new-run-bb22").mkdir()
    (store.folder / ".gone-run-cc33").mkdir()
    assert store.expire() == []
    assert list(store.folder.iterdir()) == []


async def test_runs_begin_while_others_clear_up(store: RunStore) -> None:
    writers: list[RunWriter] = []
    over = threading.Event()

    def clear() -> None:
        while not over.is_set():
            store.expire()

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        clearing = [threads.submit(clear) for _ in range(2)]
        try:
            writers += threads.map(lambda number: begin(store, f"run-{number}"), range(25))
        finally:
            over.set()
        assert [task.result() for task in clearing] == [None, None]
    assert len(list(store.folder.glob("run-*"))) == len(writers) == 25
    for writer in writers:
        writer.close("failure", keep=True)
    assert list(store.folder.iterdir()) == []


async def test_a_run_goes_when_its_time_is_over(store: RunStore, clock: Clock) -> None:
    writer = begin(store)
    await cut(writer)
    clock.now += 500
    writer.close("failure", keep=True)
    (run,) = store.runs()
    assert store.until(run) == clock.now + DAY
    clock.now += DAY
    assert store.expire() == []
    clock.now += 1
    with store.held(run):
        assert store.expire() == [], "somebody goes on from it"
    assert store.expire() == ["removed run run-aa11"]
    assert list(store.folder.iterdir()) == []
    with pytest.raises(UsageError), store.held(run):
        pass


async def test_a_run_is_removed_when_somebody_wants_it_gone(store: RunStore) -> None:
    writer = begin(store)
    await cut(writer)
    writer.close("failure", keep=True)
    (run,) = store.runs()
    with store.held(run), pytest.raises(UsageError, match="is in use"):
        store.remove(run)
    store.remove(run)
    assert list(store.folder.iterdir()) == []


async def test_past_the_size_the_oldest_goes_first(store: RunStore) -> None:
    for number in range(3):
        writer = begin(store, f"run-{number}", began=number)
        for step in range(2):
            await cut(writer, step, at=number * 10 + step, size=300 * KIB)
        writer.close("failure", keep=True)
    kept = [cut.facts.at for run in store.runs() for cut in run.cuts]
    assert sorted(kept) == [11, 20, 21]


async def test_a_run_that_goes_on_keeps_its_last_cut_however_large(store: RunStore) -> None:
    other = begin(store, "run-0", began=0)
    await cut(other, at=1, size=900 * KIB)
    other.close("failure", keep=True)
    writer = begin(store)
    for step in range(3):
        await cut(writer, step, at=100 + step, size=5000 * KIB)
    (run,) = store.runs()
    assert [cut.facts.step for cut in run.cuts] == [2]
    writer.close("failure", keep=True)


async def test_what_cuts_share_counts_once_and_what_is_shared_with_others_not_at_all(
    store: RunStore, tmp_path: Path
) -> None:
    (tmp_path / "template").write_bytes(bytes(100 * KIB))
    writer = begin(store)
    first, second = await cut(writer), await cut(writer)
    alone = store.runs()[0].size
    (first.folder / "layer").write_bytes(bytes(50 * KIB))
    (second.folder / "layer").hardlink_to(first.folder / "layer")
    (second.folder / "template").hardlink_to(tmp_path / "template")
    more = store.runs()[0].size - alone
    assert 50 * KIB <= more < 70 * KIB
    writer.drop(first)
    assert store.runs()[0].size == more + alone // 2, "what the other had below it is its own now"
    writer.close("failure", keep=True)


async def test_a_run_is_found_by_the_beginning_of_its_id(store: RunStore) -> None:
    for name, began in (("run-aa11", 1.0), ("run-aa22", 3.0), ("run-bb", 2.0)):
        writer = begin(store, name, began)
        await cut(writer)
        writer.close("failure", keep=True)
    found = {name: store.find(name).facts.run_id for name in ("run-aa1", "aa2", "b", "last")}
    assert found == {"run-aa1": "run-aa11", "aa2": "run-aa22", "b": "run-bb", "last": "run-aa22"}
    with pytest.raises(UsageError, match="may be any of run-aa22, run-aa11"):
        store.find("aa")
    with pytest.raises(UsageError, match="no run 'cc'"):
        store.find("cc")


async def test_a_run_that_goes_on_is_not_one_to_go_on_with(store: RunStore) -> None:
    with pytest.raises(UsageError, match="no run to go on with"):
        store.find("last")
    writer = begin(store)
    await cut(writer)
    with pytest.raises(UsageError, match="still goes on"):
        store.find("run-aa11")
    with pytest.raises(UsageError):
        store.find("last")
    writer.close("failure", keep=True)
    assert store.find("last").facts.run_id == "run-aa11"


@pytest.mark.parametrize(
    "wanted",
    ["test (3.11)/2", "test/2", "Test (3.11)/unit", "test/Unit tests"],
)
def test_a_cut_answers_to_what_people_call_it(wanted: str) -> None:
    facts = CutFacts(1, 0.0, "test", "3.11", "Test (3.11)", 2, "unit", "Unit tests")
    assert facts.answers(wanted)
    assert not facts.answers(f"{wanted}x")
    assert facts.shown == "test (3.11)/2"


async def test_a_disk_that_is_full_leaves_nothing_of_a_cut(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begin(store)
    first = await cut(writer)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dumps", full)
    with pytest.raises(OSError, match="No space"):
        await cut(writer)
    monkeypatch.undo()
    assert [path.name for path in (writer.folder / ".new").iterdir()] == []
    writer.close("failure", keep=True)
    assert store.runs()[0].cuts == (first,)


async def test_a_run_of_another_version_expires_and_does_not_before(store: RunStore, clock: Clock) -> None:
    store.folder.mkdir()
    other = store.folder / "run-1"
    other.mkdir()
    (other / "run.json").write_text('{"version": 99}')
    os.utime(other, (clock.now, clock.now))
    assert store.runs() == []
    assert store.expire() == []
    assert other.exists()
    clock.now = time.time() + 2 * DAY
    store.expire()
    assert not other.exists()


async def test_what_another_version_adds_is_passed_over(store: RunStore) -> None:
    writer = begin(store)
    made = await cut(writer)
    writer.close("failure", keep=True)
    for path in (writer.folder / "run.json", made.folder / "cut.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    assert store.find("last").cuts == (made,)


async def test_nonsense_in_the_folder_is_no_run(store: RunStore) -> None:
    store.folder.mkdir()
    (store.folder / "file").touch()
    (store.folder / "run-1").mkdir()
    (store.folder / "run-1/run.json").write_text("[]")
    (store.folder / "run-2").mkdir()
    (store.folder / "run-2/run.json").write_text('{"failed": []}')
    assert store.runs() == []
