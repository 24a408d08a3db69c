from __future__ import annotations

import io
import mmap
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ProviderError
from cloche.vm.qemu.pages import Memory, hold, load, save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

PAGE = mmap.PAGESIZE
PAGES = 2048
# A process that maps a file as a VM maps its template, and writes what it is told.
VM = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
for line in sys.stdin:
    offset, length, value = map(int, line.split())
    if value < 0:
        print(memory[offset:offset + length].hex(), flush=True)
    else:
        memory[offset:offset + length] = bytes([value]) * length
        print("ok", flush=True)
"""


class Process:
    def __init__(self, file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", VM, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        self.ask(0, 1, -1)  # it is up
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, *numbers: int) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, numbers)) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def read(self, offset: int, length: int) -> bytes:
        return bytes.fromhex(self.ask(offset, length, -1))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    file = tmp_path / "memory"
    file.write_bytes(random.Random(1).randbytes(PAGES * PAGE))  # noqa: S311 - to be told apart, not to be safe
    return file


@pytest.fixture
def vm(template: Path) -> Iterator[Process]:
    with Process(template) as process:
        yield process


def test_only_what_was_written_is_its_own(vm: Process, template: Path) -> None:
    vm.read(700 * PAGE, 10 * PAGE)  # reading makes no page its own
    vm.ask(5 * PAGE + 10, 1, 7)
    vm.ask(100 * PAGE, 3 * PAGE, 8)
    vm.ask((PAGES - 1) * PAGE, PAGE, 9)
    with Memory(vm.pid, template) as memory:
        assert memory.size == PAGES * PAGE
        assert memory.own_pages() == [(5 * PAGE, PAGE), (100 * PAGE, 3 * PAGE), ((PAGES - 1) * PAGE, PAGE)]


def test_another_process_of_the_template_becomes_the_first(vm: Process, template: Path) -> None:
    vm.ask(5 * PAGE + 10, 20, 7)
    vm.ask(64 * PAGE, 40 * PAGE, 8)
    saved = io.BytesIO()
    with Memory(vm.pid, template) as memory:
        assert save(memory, saved) == 41 * PAGE
    before = template.read_bytes()
    with Process(template) as other:
        saved.seek(0)
        with Memory(other.pid, template) as memory:
            assert load(memory, saved) == 41 * PAGE
        assert other.read(0, 128 * PAGE) == vm.read(0, 128 * PAGE)
        assert other.read(5 * PAGE + 10, 20) == b"\7" * 20
    assert template.read_bytes() == before, "the template itself was written"


def test_what_is_held_is_of_that_moment_and_written_later(vm: Process, template: Path) -> None:
    vm.ask(5 * PAGE, 300 * PAGE, 7)
    vm.ask(1000 * PAGE + 1, 1, 8)
    saved, later = io.BytesIO(), io.BytesIO()
    with Memory(vm.pid, template) as memory:
        save(memory, saved)
        held = hold(memory, 301 * PAGE)
        assert hold(memory, 301 * PAGE - 1) is None
    vm.ask(5 * PAGE, 300 * PAGE, 9)
    assert held is not None
    assert held.write(later) == 301 * PAGE
    assert later.getvalue() == saved.getvalue()


def test_nothing_written_nothing_saved(vm: Process, template: Path) -> None:
    saved = io.BytesIO()
    with Memory(vm.pid, template) as memory:
        assert save(memory, saved) == 0
        saved.seek(0)
        assert load(memory, saved) == 0


def test_a_process_without_the_mapping(vm: Process, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * PAGE)
    with pytest.raises(ProviderError, match="no VM of that template"):
        Memory(vm.pid, tmp_path / "other")


def test_a_process_that_is_gone(template: Path) -> None:
    with Process(template) as process:
        pass
    with pytest.raises(ProviderError, match="cannot be reached"):
        Memory(process.pid, template)


def saved_by(vm: Process, template: Path) -> bytes:
    vm.ask(3 * PAGE, 2 * PAGE, 7)
    saved = io.BytesIO()
    with Memory(vm.pid, template) as memory:
        save(memory, saved)
    return saved.getvalue()


@pytest.mark.parametrize("keep", [0, 10, 20, 40, PAGE])
def test_what_was_cut_short_is_refused(vm: Process, template: Path, keep: int) -> None:
    cut = io.BytesIO(saved_by(vm, template)[:keep])
    with (
        Memory(vm.pid, template) as memory,
        pytest.raises(ProviderError, match=r"end early|not of this version"),
    ):
        load(memory, cut)


@pytest.mark.parametrize("run", [(PAGES * PAGE, PAGE), (1, PAGE), (0, 5), (0, 2**63)])
def test_what_does_not_fit_is_refused(vm: Process, template: Path, run: tuple[int, int]) -> None:
    told = b"".join(number.to_bytes(8, "little") for number in (1, *run))
    wrong = io.BytesIO(saved_by(vm, template)[:16] + told)
    with Memory(vm.pid, template) as memory, pytest.raises(ProviderError, match="do not fit"):
        load(memory, wrong)
