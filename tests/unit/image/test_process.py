"""Running programs: their output, their failures, and that nobody stays behind."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import pytest

from cloche.errors import ImageError
from cloche.image import process
from cloche.image.process import as_root, require, run


def sh(script: str, log: io.BytesIO | None = None, **options: object) -> None:
    run(["sh", "-c", script], what="the script", log=log or io.BytesIO(), deadline=20, **options)  # type: ignore[arg-type] # of run


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)  # nobody tells us of a process that is not our child
    return not is_alive(pid)


def test_output_goes_to_the_log_and_line_by_line_to_the_listener() -> None:
    log, lines = io.BytesIO(), list[str]()
    sh("echo one; echo two >&2; printf three", log, on_line=lines.append)
    assert lines == ["one", "two", "three"]
    assert log.getvalue().endswith(b"one\ntwo\nthree")
    assert log.getvalue().startswith(b"$ sh -c ")


def test_a_failure_quotes_the_line_that_says_most() -> None:
    with pytest.raises(ImageError, match=r"the script failed with status 3: E: no such package$"):
        sh("echo I: working; echo E: no such package; echo bye; exit 3")


def test_a_failure_without_words_says_so() -> None:
    with pytest.raises(ImageError, match="it said nothing"):
        sh("exit 1")


def test_a_missing_program_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match=r"not installed: mkfs\.erofs, newuidmap") as caught:
        require("mkfs.erofs", "newuidmap")
    assert caught.value.hint == "sudo apt-get install erofs-utils uidmap"


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    longest = 0

    def measure(line: str) -> None:
        nonlocal longest
        longest = max(longest, len(line))

    sh("head -c 3000000 /dev/zero | tr '\\0' x", on_line=measure)
    assert 0 < longest < 300_000


def test_the_deadline_ends_the_whole_group() -> None:
    pids: list[int] = []
    started = time.monotonic()
    with pytest.raises(ImageError, match="the script took longer than 1 s and was ended"):
        run(
            ["sh", "-c", "sleep 600 & echo $!; wait"],
            what="the script",
            log=io.BytesIO(),
            deadline=1,
            on_line=lambda line: pids.append(int(line)),
        )
    assert time.monotonic() - started < 10
    assert wait_until_gone(pids[0])


def test_an_interrupt_ends_the_whole_group() -> None:
    pids: list[int] = []

    def interrupted(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sh("sleep 600 & echo $!; wait", on_line=interrupted)
    assert wait_until_gone(pids[0])


def test_root_of_the_machine_needs_no_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    argv = as_root(["true", "--flag"])
    assert argv[-3:] == ["--", "true", "--flag"]
    assert "--user" not in argv
    assert "--kill-child" in argv


def test_others_become_root_of_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(process, "require", lambda *_: None)
    monkeypatch.setattr(process, "_require_subordinate_ids", lambda: None)
    assert {"--user", "--map-root-user", "--map-auto"} <= set(as_root(["true"]))


def test_without_a_range_of_ids_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    monkeypatch.setattr("getpass.getuser", lambda: "nobody-here")
    monkeypatch.setattr(process, "require", lambda *_: None)
    with pytest.raises(ImageError, match="gives nobody-here no range of ids") as caught:
        as_root(["true"])
    assert "usermod --add-subuids" in str(caught.value.hint)


@pytest.mark.sandbox
def test_what_runs_as_root_dies_with_its_parent(tmp_path: Path) -> None:
    try:
        argv = as_root(["sh", "-c", 'read -r pid rest </proc/self/stat; echo "$pid"; sleep 600; :'])
    except ImageError as error:
        pytest.skip(f"no root here: {error}")
    script = f"import subprocess; subprocess.run({argv!r})"
    marker = f"marker{os.getpid()}"
    import subprocess

    with subprocess.Popen([sys.executable, "-c", script, marker], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"1\n"  # first of its own PID namespace
        parent.kill()
        assert parent.stdout.read() == b""  # the end of its output: no writer is left
