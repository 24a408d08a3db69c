from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.guest.processes import descendants, signal_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Started = subprocess.Popen[str]
    Start = Callable[..., Started]

# Four processes in three generations, each of which says its depth on SIGUSR1.
FAMILY = """
import os, signal
for depth in range(3):
    if os.fork():
        break
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"%d\\n" % depth))
os.write(1, b"up\\n")
while True:
    signal.pause()
"""
BREEDER = """
import os, signal
os.write(1, b"up\\n")
for _ in range(500):
    if os.fork() == 0:
        signal.pause()
signal.pause()
"""


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Started] = []

    def run(*argv: str) -> Started:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        for pid in descendants(process.pid) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        with process:
            pass


def lines(process: Started, count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def test_a_signal_reaches_all_generations_once(start: Start) -> None:
    family = start(sys.executable, "-c", FAMILY)
    lines(family, 4)
    signal_tree(family.pid, signal.SIGUSR1)
    assert sorted(lines(family, 4)) == ["0", "1", "2", "2"]
    signal_tree(family.pid, signal.SIGUSR1)
    assert sorted(lines(family, 4)) == ["0", "1", "2", "2"]


def test_orphans_are_found_by_their_session(start: Start) -> None:
    shell = start("setsid", "bash", "-c", "(sleep 1000 & echo $!); exec sleep 1000")
    orphan = int(lines(shell, 1)[0])
    signal_tree(shell.pid, signal.SIGTERM)
    assert shell.wait(10) == -signal.SIGTERM
    while state(orphan) not in {"Z", "gone"}:
        os.sched_yield()


def test_nobody_else_is_touched(start: Start) -> None:
    families = [start(sys.executable, "-c", FAMILY) for _ in range(2)]
    for family in families:
        lines(family, 4)
    signal_tree(families[0].pid, signal.SIGKILL)
    families[0].wait(10)
    assert len(descendants(families[1].pid)) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_those_that_are_forked_meanwhile_do_not_escape(start: Start, number: int) -> None:
    for _ in range(5):
        breeder = start(sys.executable, "-c", BREEDER)
        lines(breeder, 1)
        signal_tree(breeder.pid, number)
        assert breeder.wait(10) == -number
        assert breeder.stdout is not None
        assert breeder.stdout.read() == ""  # every descendant would hold it open


def test_stopping_and_going_on(start: Start) -> None:
    family = start(sys.executable, "-c", FAMILY)
    lines(family, 4)
    everybody = descendants(family.pid)
    signal_tree(family.pid, signal.SIGSTOP)
    for pid in everybody:
        while state(pid) != "T":
            os.sched_yield()
    signal_tree(family.pid, signal.SIGCONT)
    signal_tree(family.pid, signal.SIGUSR1)
    assert sorted(lines(family, 4)) == ["0", "1", "2", "2"]


@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_gone_is_no_error(start: Start, number: int) -> None:
    gone = start("true")
    gone.wait(10)
    signal_tree(gone.pid, number)


def test_a_signal_that_does_not_exist_is_no_error(start: Start) -> None:
    family = start(sys.executable, "-c", FAMILY)
    lines(family, 4)
    signal_tree(family.pid, 99)
    assert len(descendants(family.pid)) == 4


def test_a_name_that_looks_like_a_status_line(start: Start, tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 ("
    odd.symlink_to("/bin/sleep")
    process = start("bash", "-c", 'echo up; "$0" 1000; true', str(odd))
    lines(process, 1)
    while len(descendants(process.pid)) < 2:
        os.sched_yield()
    signal_tree(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
