"""Children end with what started them, however early that ends."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ProviderError
from cloche.vm.child import Child

if TYPE_CHECKING:
    from pathlib import Path

OWNER = """
import asyncio, sys
from cloche.vm.child import Child

async def main():
    child = Child.start(["sleep", "1000"])
    print(child.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_child_runs_to_its_end_and_its_last_words_are_kept() -> None:
    child = Child.start([sys.executable, "-c", "import sys; sys.exit('enough')"])
    assert await child.wait() == 1
    assert child.said == "enough\n"
    await child.kill()


async def test_a_child_gets_its_arguments_as_they_are(tmp_path: Path) -> None:
    child = Child.start(["touch", f"{tmp_path}/a b", f"{tmp_path}/$HOME", f"{tmp_path}/'"])
    assert await child.wait() == 0
    assert names(tmp_path) == {"a b", "$HOME", "'"}
    await child.kill()


def test_a_child_ends_with_its_owner() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        child = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()
    ended = select.poll()
    ended.register(child, select.POLLIN)
    assert ended.poll(10_000)
    os.close(child)


async def test_a_child_whose_owner_ended_before_it_was_watched_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as another process becomes the parent of an orphan
    child = Child.start(["touch", f"{tmp_path}/started"])
    assert await child.wait() != 0
    assert names(tmp_path) == set()
    await child.kill()


async def test_without_what_watches_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProviderError, match="setpriv is not installed"):
        Child.start(["true"])


async def test_only_the_end_of_what_a_child_says_is_kept() -> None:
    script = "import sys; [sys.stderr.write('x' * 1000) for _ in range(500)]; sys.exit('the end')"
    child = Child.start([sys.executable, "-c", script])
    await child.wait()
    assert child.said.endswith("the end\n")
    assert len(child.said) <= 16 * 1024
    await child.kill()


async def test_the_end_of_a_child_is_told_though_others_still_write_to_its_error() -> None:
    child = Child.start(["sh", "-c", "yes >&2 & echo $! ; kill -9 $$"])
    async with asyncio.timeout(20):
        assert await child.wait() == -9
    await child.kill()  # closes the pipe, which ends the other


async def test_killing_again_or_what_has_ended_is_fine() -> None:
    child = Child.start(["sleep", "1000"])
    await child.kill()
    await child.kill()
    assert await child.wait() == -9
