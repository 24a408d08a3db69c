from __future__ import annotations

import errno
import io
import tarfile

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloche.vm.fake.files import Device, File, FileSystem, Folder, Link, Program


@pytest.fixture
def files() -> FileSystem:
    made = FileSystem(capacity=1000)
    made.make_folders("/a/b")
    made.write("/a/b/file", b"content")
    made.add("/link", Link("a/b"), follow=False)
    made.add("/loop", Link("loop"), follow=False)
    made.add("/up", Link("../.."), follow=False)
    return made


@pytest.mark.parametrize(
    ("path", "cwd", "resolved"),
    [
        ("file", "/a/b", "/a/b/file"),
        ("/link/file", "/", "/a/b/file"),
        ("../b/./file", "/a/b", "/a/b/file"),
        ("/up/a", "/", "/a"),
        ("/../../a", "/", "/a"),
        ("/a/new", "/", "/a/new"),
        ("/", "/a", "/"),
    ],
)
def test_paths(files: FileSystem, path: str, cwd: str, resolved: str) -> None:
    assert files.resolve(path, cwd) == resolved


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/no/such", errno.ENOENT),
        ("/a/b/file/below", errno.ENOTDIR),
        ("/loop", errno.ELOOP),
        ("/loop/x", errno.ELOOP),
        ("/a/missing", errno.ENOENT),
    ],
)
def test_what_is_not_there_fails_as_in_linux(files: FileSystem, path: str, number: int) -> None:
    with pytest.raises(OSError, match=path) as caught:
        files.find(path)
    assert caught.value.errno == number
    assert files.lookup(path) is None


@pytest.mark.parametrize(
    ("path", "number"),
    [("/a", errno.EISDIR), ("/nowhere/file", errno.ENOENT), ("/a/b/file/below", errno.ENOTDIR)],
)
def test_what_cannot_be_written(files: FileSystem, path: str, number: int) -> None:
    with pytest.raises(OSError, match=path) as caught:
        files.write(path, b"x")
    assert caught.value.errno == number


def test_writing_through_a_link(files: FileSystem) -> None:
    files.write("/link/other", b"x")
    assert files.read("/a/b/other") == b"x"
    files.remove("/link")
    assert files.read("/a/b/file") == b"content"


def test_a_program_is_not_overwritten(files: FileSystem) -> None:
    files.add("/tool", Program("echo"))
    with pytest.raises(PermissionError):
        files.write("/tool", b"x")


def test_devices_swallow(files: FileSystem) -> None:
    files.add("/null", Device("null"))
    files.write("/null", bytes(10_000))
    assert files.read("/null") == b""


def test_the_capacity_holds(files: FileSystem) -> None:
    with pytest.raises(OSError, match="No space left"):
        files.write("/big", bytes(1001))
    files.write("/big", bytes(990))
    files.remove("/big")
    files.write("/big", bytes(990))
    files.remove("/a", recursive=True)
    files.write("/more", bytes(10))


def test_unpacking_stays_below(files: FileSystem) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name in ("../../etc/escaped", "/absolute", "ok"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
    files.untar("/a", target.getvalue())
    assert sorted(name for name, _ in files.walk("/a"))[1:] == [
        "absolute", "b", "b/file", "etc", "etc/escaped", "ok",
    ]  # fmt: skip


class Files(RuleBasedStateMachine):
    """Writing, removing and packing against a dictionary of paths."""

    paths = st.lists(st.sampled_from(["a", "b", "c.txt"]), min_size=1, max_size=3).map("/".join)

    def __init__(self) -> None:
        super().__init__()
        self.files = FileSystem(capacity=1 << 20)
        self.model: dict[str, bytes] = {}

    @rule(path=paths, data=st.binary(max_size=20), append=st.booleans())
    def write(self, path: str, data: bytes, append: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
        if any(path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in self.model):
            return
        parent = path.rpartition("/")[0]
        self.files.make_folders(f"/{parent}")
        if isinstance(self.files.lookup(f"/{path}"), Folder):
            return
        self.files.write(f"/{path}", data, append=append)
        self.model[path] = (self.model.get(path, b"") if append else b"") + data

    @rule(path=paths)
    def remove(self, path: str) -> None:
        if self.files.lookup(f"/{path}") is None:
            return
        self.files.remove(f"/{path}", recursive=True)
        self.model = {p: d for p, d in self.model.items() if p != path and not p.startswith(f"{path}/")}

    @rule()
    def pack_and_unpack(self) -> None:
        copy = FileSystem(capacity=1 << 20)
        copy.untar("/", self.files.tar("/"))
        self.files = copy

    @invariant()
    def same_files(self) -> None:
        found = {path: bytes(node.content) for path, node in self.files.walk("/") if isinstance(node, File)}
        assert found == self.model
        assert self.files._used == sum(map(len, self.model.values()))


TestFiles = Files.TestCase
