from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.guest import spawn
from cloche.guest.spawn import Program, Spawner, StartError, User, UserTable, read_collected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = User(0, 0, ())
NOBODY = User(65534, 65534, (65534, 100))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
runner:x:1001:1001::/home/runner:/bin/bash
builder:x:1002:100::/home/builder:/bin/sh
broken line
short:x:1
letters:x:a:b::/:/bin/sh
huge:x:4294967295:1::/:/bin/sh
"""
GROUP = """\
root:x:0:
users:x:100:
docker:x:999:runner,builder
sudo:x:27:runner
runner:x:1001:
broken
"""


# Users


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("root", User(0, 0, (0,))),
        ("runner", User(1001, 1001, (27, 999, 1001))),
        ("builder", User(1002, 100, (100, 999))),
        ("1002", User(1002, 100, (100, 999))),
        ("4321", User(4321, 4321, (4321,))),
        (None, User(1001, 1001, (27, 999, 1001))),
    ],
)
def test_users_and_their_groups(etc: Path, name: str | None, user: User) -> None:
    assert UserTable(str(etc)).find(name) == user


@pytest.mark.parametrize(
    "name", ["nobody-we-know", "", "short", "letters", "huge", "4294967295", "-1", "1" * 5000]
)
def test_unknown_users(etc: Path, name: str) -> None:
    with pytest.raises(KeyError, match="no user"):
        UserTable(str(etc)).find(name)


def test_the_default_user_is_root_where_there_is_no_runner(etc: Path) -> None:
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    assert UserTable(str(etc)).find(None) == User(0, 0, (0,))


def test_an_image_without_users(tmp_path: Path) -> None:
    assert UserTable(str(tmp_path)).find(None) == User(0, 0, (0,))
    with pytest.raises(KeyError):
        UserTable(str(tmp_path)).find("root")


def test_users_that_are_added_later_are_found(etc: Path) -> None:
    table = UserTable(str(etc))
    with pytest.raises(KeyError):
        table.find("late")
    with (etc / "passwd").open("a") as file:
        file.write("late:x:1003:1003::/:/bin/sh\n")
    os.utime(etc / "passwd", ns=(1, 1))
    assert table.find("late").uid == 1003


def test_where_only_one_user_is_mapped_everybody_is_that_one(etc: Path) -> None:
    table = UserTable(str(etc), single=True)
    assert {table.find(name) for name in ("root", "runner", "1002", None)} == {ROOT}
    with pytest.raises(KeyError, match="nobody-we-know"):
        table.find("nobody-we-know")


# Programs


class Ran:
    """A finished program."""

    def __init__(self, output: bytes, code: int) -> None:
        self.output = output
        self.code = code


@pytest.fixture
def run() -> Iterator[Callable[..., Ran]]:
    score = Path("/proc/self/oom_score_adj")
    before = score.read_text()
    spawner = Spawner(None)

    def run(*argv: str, user: User = ROOT, **fields: object) -> Ran:
        values: dict[str, object] = {"env": {"PATH": PATH}, "cwd": "/", "files": [], "terminal": False}
        program = Program(list(argv), user=user, **{**values, **fields})  # type: ignore[arg-type] # by name, as given
        reader, writer = os.pipe()
        with Path(os.devnull).open("rb") as null, os.fdopen(reader, "rb") as output:
            try:
                process = spawner.start(program, 1, null.fileno(), writer)
            finally:
                os.close(writer)
            return Ran(output.read(), process.wait(10))

    yield run
    score.write_text(before)


def test_output_and_error_are_one(run: Callable[..., Ran]) -> None:
    ran = run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ran.output, ran.code) == (b"out\nerr\n", 3)


def test_the_environment_is_the_programs_own(run: Callable[..., Ran]) -> None:
    assert run("/usr/bin/env", env={"A": "1"}).output == b"A=1\n"


def test_programs_are_found_by_their_own_path(run: Callable[..., Ran], tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    assert run("tool", env={"PATH": f"/nowhere:{tmp_path}"}).output == b"mine\n"


def test_a_program_has_a_session_of_its_own(run: Callable[..., Ran]) -> None:
    session = run(sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())")
    assert session.output == b"True\n"


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["/no/such/program"], spawn.NOT_FOUND),
        (["no-such-program"], spawn.NOT_FOUND),
        (["/etc/passwd"], spawn.NOT_EXECUTABLE),
        (["/"], spawn.NOT_EXECUTABLE),
        (["sh", "a\0b"], spawn.NOT_EXECUTABLE),
        ([], spawn.NOT_FOUND),
    ],
)
def test_programs_that_cannot_start(run: Callable[..., Ran], argv: list[str], code: int) -> None:
    with pytest.raises(StartError) as caught:
        run(*argv)
    assert caught.value.code == code
    assert str(caught.value)


def test_a_format_that_nobody_runs(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\x00\x01")
    (tmp_path / "data").chmod(0o755)
    with pytest.raises(StartError, match="data"):
        run(str(tmp_path / "data"))


def test_an_interpreter_that_is_missing(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(StartError) as caught:
        run(str(tmp_path / "script"))
    assert caught.value.code == spawn.NOT_FOUND


def test_a_working_directory_that_is_missing_is_named(run: Callable[..., Ran]) -> None:
    with pytest.raises(StartError, match="/no/such/folder") as caught:
        run("true", cwd="/no/such/folder")
    assert caught.value.code == spawn.NOT_EXECUTABLE


@as_root
def test_a_program_is_its_user(run: Callable[..., Ran]) -> None:
    ran = run("sh", "-c", "id -u; id -g; id -G; umask", user=NOBODY)
    assert ran.output.split() == [b"65534", b"65534", b"65534", b"100", b"0022"]


def test_a_program_goes_before_others_when_memory_runs_out(run: Callable[..., Ran]) -> None:
    assert run("cat", "/proc/self/oom_score_adj").output == b"500\n"
    own = Path("/proc/self/oom_score_adj").read_text()
    assert own in {"-1000\n", "500\n"}  # the latter where lowering it takes more than we are


# Signals


def test_nothing_the_agent_ignores_is_ignored_by_a_program() -> None:
    """In a process of its own, as an init does it: see Init.run."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(spawn.__file__).parents[2])!r})
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
from cloche.guest import spawn
from cloche.guest.init import restore_signals
restore_signals()
argv = ["grep", "SigIgn", "/proc/self/status"]
program = spawn.Program(argv, env={{"PATH": {PATH!r}}}, cwd="/", user=spawn.User(0, 0, ()), files=[], terminal=False)
sys.exit(spawn.Spawner(None).start(program, 1, 0, 1).wait())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    ignored = int(ran.stdout.split()[1], 16)
    of_the_c_library = (
        0b11 << 31
    )  # signals 32 and 33: posix_spawn, make's for one, starts programs ignoring them
    assert ignored & ~of_the_c_library == 0


# Files


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder of root's that every user can look into; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_files_are_written_before_the_program(run: Callable[..., Ran], tmp_path: Path) -> None:
    large = os.urandom(3_000_000)
    files = [(str(tmp_path / "a"), b"content"), (str(tmp_path / "b"), b""), (str(tmp_path / "c"), large)]
    assert run("cat", str(tmp_path / "a"), files=files).output == b"content"
    assert (tmp_path / "b").read_bytes() == b""
    assert (tmp_path / "c").read_bytes() == large
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_files_replace_what_was_there(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"something longer")
    assert run("cat", str(tmp_path / "a"), files=[(str(tmp_path / "a"), b"new")]).output == b"new"


@as_root
def test_missing_folders_are_made_for_the_user(run: Callable[..., Ran], public: Path) -> None:
    path = public / "new" / "deep" / "file"
    assert run("true", files=[(str(path), b"x")], user=NOBODY).code == 0
    for made in (path, path.parent, path.parent.parent):
        assert (made.stat().st_uid, made.stat().st_gid) == (65534, 65534)
    assert public.stat().st_uid == 0
    assert (os.geteuid(), os.getegid()) == (0, 0)


@as_root
def test_what_a_user_may_not_write_is_not_written_for_it(run: Callable[..., Ran], public: Path) -> None:
    guarded = public / "guarded"
    guarded.write_bytes(b"root's")
    with pytest.raises(StartError, match="guarded") as caught:
        run("true", files=[(str(guarded), b"x")], user=NOBODY)
    assert caught.value.code == spawn.NOT_EXECUTABLE
    assert guarded.read_bytes() == b"root's"
    assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_files_are_not_written_through_what_is_no_file(
    run: Callable[..., Ran], tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "target"
    place = tmp_path / "place"
    if kind == "link":
        place.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(StartError, match="place"):
        run("true", files=[(str(place), b"x")])
    assert not target.exists()


def test_a_file_that_has_no_place(run: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartError, match="file"):
        run("true", files=[(str(tmp_path / "file" / "below"), b"x")])


# Collected files


def test_a_file_is_read_up_to_one_byte_past_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    assert read_collected(str(path), 1000) == bytes(range(100))
    assert read_collected(str(path), 100) == bytes(range(100))
    assert read_collected(str(path), 10) == bytes(range(11))


def test_an_empty_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_collected(str(tmp_path / "file"), 10) == b""


@pytest.mark.parametrize("kind", ["nothing", "folder", "fifo", "link", "socket", "device"])
def test_what_is_no_file_is_not_collected(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "place"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    assert read_collected(str(path), 10) is None
