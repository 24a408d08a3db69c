from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ProviderError, SessionLimitReached
from cloche.session.registry import ActiveSession, SessionRegistry, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloche.session.registry import Slot

OWNER = """
import asyncio, os, sys
from pathlib import Path
from cloche.session.registry import ActiveSession, SessionRegistry

async def main():
    for number in range(int(sys.argv[2])):
        session = ActiveSession(f"sess-{number:012x}", "elsewhere", os.getpid(), number)
        await SessionRegistry(Path(sys.argv[1])).add(session, 99)
    print("ready", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


WAITER = """
import asyncio, os, sys
from pathlib import Path
from cloche.session.registry import ActiveSession, SessionRegistry

async def main():
    session = ActiveSession("sess-00000000000f", "elsewhere", os.getpid(), 0)
    tell = lambda waiting: print("waiting", flush=True)
    await SessionRegistry(Path(sys.argv[1])).add(session, 1, patience=float(sys.argv[2]), tell=tell)
    print("entered", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def registry(folder: Path) -> SessionRegistry:
    return SessionRegistry(folder)


def session(number: int, workflow: str = "CI") -> ActiveSession:
    return ActiveSession(f"sess-{number:012x}", workflow, os.getpid(), 1_700_000_000.0 + number)


@pytest.fixture
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that has two sessions."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def start_child() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"], close_fds=False)


async def test_a_place_is_taken_until_released(registry: SessionRegistry, folder: Path) -> None:
    slot = await registry.add(session(1), limit=1)
    assert await registry.active() == [session(1)]
    slot.release()
    slot.release()
    assert await registry.active() == []
    assert names(folder) == []


async def test_the_limit_names_itself_and_what_is_active(registry: SessionRegistry) -> None:
    slots = [await registry.add(session(n, f"flow {n}"), limit=2) for n in (2, 1)]
    with pytest.raises(SessionLimitReached) as caught:
        await registry.add(session(3), limit=2)
    message = caught.value.message
    assert "limit of 2 concurrent sessions" in message
    assert message.index("sess-000000000001") < message.index("sess-000000000002")
    assert "'flow 1'" in message
    assert f"process {os.getpid()}" in message
    assert time.strftime("%H:%M", time.localtime(1_700_000_001)) in message
    assert caught.value.hint is not None
    assert "max_concurrent" in caught.value.hint
    assert caught.value.exit_code == 3
    for slot in slots:
        slot.release()


async def test_refusing_one_disturbs_nobody(registry: SessionRegistry) -> None:
    slot = await registry.add(session(1), limit=1)
    for number in range(2, 5):
        with pytest.raises(SessionLimitReached):
            await registry.add(session(number), limit=1)
    assert await registry.active() == [session(1)]
    slot.release()
    (await registry.add(session(5), limit=1)).release()


async def test_tasks_that_race_never_pass_the_limit(folder: Path) -> None:
    registries = [SessionRegistry(folder) for _ in range(12)]
    results = await asyncio.gather(
        *(registry.add(session(n), limit=5) for n, registry in enumerate(registries)), return_exceptions=True
    )
    slots = [result for result in results if not isinstance(result, BaseException)]
    assert len(slots) == 5
    assert all(isinstance(r, SessionLimitReached) for r in results if isinstance(r, BaseException))
    for slot in slots:
        slot.release()


async def test_processes_count_together(
    registry: SessionRegistry, other_process: subprocess.Popen[str]
) -> None:
    with pytest.raises(SessionLimitReached, match=f"process {other_process.pid}"):
        await registry.add(session(9), limit=2)
    slot = await registry.add(session(9), limit=3)
    assert [one.pid for one in await registry.active()] == [other_process.pid, other_process.pid, os.getpid()]
    slot.release()


async def test_what_a_killed_process_held_is_free_again(
    registry: SessionRegistry, folder: Path, other_process: subprocess.Popen[str]
) -> None:
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    assert len(names(folder)) == 2
    slot = await registry.add(session(9), limit=1)
    assert await registry.active() == [session(9)]
    slot.release()
    assert names(folder) == []


async def test_collecting_tells_what_the_dead_left(
    registry: SessionRegistry, other_process: subprocess.Popen[str]
) -> None:
    assert await registry.collect() == []
    other_process.kill()
    other_process.wait()
    assert [(one.workflow, one.pid) for one in await registry.collect()] == [
        ("elsewhere", other_process.pid),
        ("elsewhere", other_process.pid),
    ]
    assert await registry.collect() == []


async def test_a_child_of_ours_does_not_keep_our_place(registry: SessionRegistry) -> None:
    slot = await registry.add(session(1), limit=1)
    child = start_child()
    slot.release()
    assert await registry.active() == []
    child.kill()
    child.wait()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"workflow": 1}', b"0" * 100_000])
async def test_a_damaged_file_still_counts_while_its_owner_lives(
    registry: SessionRegistry, folder: Path, content: bytes
) -> None:
    slot = await registry.add(session(1), limit=1)
    overwrite(folder / f"{session(1).id}.json", content)
    with pytest.raises(SessionLimitReached, match=session(1).id):
        await registry.add(session(2), limit=1)
    slot.release()


async def test_other_files_are_none_of_ours(registry: SessionRegistry, folder: Path) -> None:
    await registry.active()
    overwrite(folder / "notes.txt", b"mine")
    assert await registry.active() == []
    assert names(folder) == ["notes.txt"]


async def test_a_lock_held_too_long_is_told(folder: Path) -> None:
    first, second = SessionRegistry(folder), SessionRegistry(folder, lock_timeout=0.01)
    async with first._locked():
        with pytest.raises(ProviderError, match="has held the lock"):
            await second.active()
    assert await second.active() == []


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    overwrite(tmp_path / "file", b"")
    with pytest.raises(ProviderError, match="cannot keep count"):
        await SessionRegistry(tmp_path / "file" / "sessions").active()


async def test_the_folder_is_private(registry: SessionRegistry, folder: Path) -> None:
    slot = await registry.add(session(1), limit=1)
    assert mode(folder) == 0o700
    assert mode(folder / f"{session(1).id}.json") == 0o600
    slot.release()


# Waiting


@contextlib.contextmanager
def waiting_process(folder: Path, patience: float) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that waits for a place."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(folder), str(patience)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


async def lined_up(registry: SessionRegistry, number: int, limit: int = 1) -> asyncio.Task[Slot]:
    """A session that has taken its place in the line."""
    standing = asyncio.Event()
    add = registry.add(session(number), limit, patience=60.0, tell=lambda _: standing.set())
    task = asyncio.create_task(add)
    await standing.wait()
    return task


async def test_places_go_in_the_order_of_asking(registry: SessionRegistry, folder: Path) -> None:
    slot = await registry.add(session(9), limit=1)
    tasks = [await lined_up(SessionRegistry(folder), number) for number in (3, 1, 2)]
    order = []
    for task in tasks:
        slot.release()
        slot = await task
        order += [one.id for one in await registry.active()]
    slot.release()
    assert order == [session(number).id for number in (3, 1, 2)]
    assert names(folder) == []


async def test_who_comes_later_overtakes_nobody(registry: SessionRegistry) -> None:
    slot = await registry.add(session(1), limit=1)
    second = await lined_up(registry, 2)
    slot.release()
    with pytest.raises(SessionLimitReached, match="1 more waiting"):
        await registry.add(session(3), limit=1)
    (await second).release()


async def test_a_line_holds_up_only_as_many_as_stand_in_it(registry: SessionRegistry) -> None:
    first = await registry.add(session(1), limit=1)
    second = await lined_up(registry, 2, limit=1)
    third = await registry.add(session(3), limit=3)  # 1 active, 1 before it, and room for 3
    with pytest.raises(SessionLimitReached):
        await registry.add(session(4), limit=3)
    third.release()
    first.release()
    (await second).release()


async def test_who_stops_waiting_gives_up_its_place_in_the_line(
    registry: SessionRegistry, folder: Path
) -> None:
    slot = await registry.add(session(1), limit=1)
    second, third = await lined_up(registry, 2), await lined_up(registry, 3)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert [name.partition("sess")[0] for name in names(folder)] == ["", "wait-000000000002-"]
    slot.release()
    (await third).release()


async def test_each_move_in_the_line_is_told_once(registry: SessionRegistry) -> None:
    told: asyncio.Queue[Waiting] = asyncio.Queue()
    slot = await registry.add(session(1), limit=1)
    second = await lined_up(registry, 2)
    third = asyncio.create_task(registry.add(session(3), 1, patience=60.0, tell=told.put_nowait))
    assert await told.get() == Waiting(2, 1, 1)
    slot.release()
    slot = await second
    assert await told.get() == Waiting(1, 1, 1)
    slot.release()
    (await third).release()
    assert told.empty()


async def test_the_deadline_says_how_long_it_was_waited(registry: SessionRegistry, folder: Path) -> None:
    slot = await registry.add(session(1), limit=1)
    with pytest.raises(SessionLimitReached) as caught:
        await registry.add(session(2), limit=1, patience=0.02)
    assert "was reached for 2" in caught.value.message
    assert session(1).id in caught.value.message
    assert caught.value.hint is not None
    assert "wait longer" in caught.value.hint
    slot.release()
    assert names(folder) == []


async def test_a_killed_waiter_holds_up_nobody(registry: SessionRegistry, folder: Path) -> None:
    slot = await registry.add(session(1), limit=1)
    with waiting_process(folder, 60.0) as process:
        second = await lined_up(registry, 2)
        process.kill()
        process.wait()
        slot.release()
        (await second).release()
    assert names(folder) == []


async def test_a_frozen_waiter_counts_no_longer_than_it_was_to_wait(
    registry: SessionRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await registry.add(session(1), limit=1)
    with waiting_process(folder, 60.0) as process:
        process.send_signal(signal.SIGSTOP)
        slot.release()
        with pytest.raises(SessionLimitReached):
            await registry.add(session(2), limit=1)
        later = time.time() + 80.0
        monkeypatch.setattr(time, "time", lambda: later)
        (await registry.add(session(2), limit=1)).release()


async def test_a_waiter_of_another_process_gets_its_turn(registry: SessionRegistry, folder: Path) -> None:
    slot = await registry.add(session(1), limit=1)
    with waiting_process(folder, 60.0) as process:
        assert process.stdout is not None
        slot.release()
        assert await asyncio.to_thread(process.stdout.readline) == "entered\n"
        with pytest.raises(SessionLimitReached, match="sess-00000000000f"):
            await registry.add(session(2), limit=1)
