"""What the guest gets of the repository at hand. https://github.com/actions/checkout"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.execution import checkout
from cloche.execution.checkout import PIECE, CheckoutError, CheckoutSpec, remove_stale, stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.execution.conftest import Repository

REMOTE = "https://github.com/octo/hello"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of its own, in which nothing may remain."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


async def read(spec: CheckoutSpec) -> bytes:
    async with contextlib.aclosing(stream(spec)) as pieces:
        return b"".join([piece async for piece in pieces])


async def unpack(spec: CheckoutSpec, target: Path) -> Path:
    extract(await read(spec), target)
    return target


def extract(data: bytes, target: Path) -> None:
    target.mkdir()
    subprocess.run(["tar", "--extract", "--directory", str(target)], input=data, check=True, timeout=30)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=30
    ).stdout


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return {path for path in found if not path.startswith(".git/")}


async def test_the_working_tree_goes_along_as_it_is(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"kept": "1", "changed": "1", "gone": "1", ".gitignore": "ignored\n"})
    (repository.path / "changed").write_text("2")
    (repository.path / "gone").unlink()
    (repository.path / "new").write_text("3")
    (repository.path / "ignored").write_text("4")
    (repository.path / "run").write_text("#!/bin/sh\n")
    (repository.path / "run").chmod(0o755)
    (repository.path / "link").symlink_to("kept")

    out = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "out")

    assert files(out) == {"kept", "changed", "new", "run", "link", ".gitignore"}
    assert (out / "changed").read_text() == "2"
    assert os.access(out / "run", os.X_OK)
    assert (out / "link").readlink() == Path("kept")
    assert git(out, "status", "--porcelain").splitlines() == [
        " M changed",
        " D gone",
        "?? link",
        "?? new",
        "?? run",
    ]


async def test_history_as_deep_as_asked(repository: Repository, tmp_path: Path) -> None:
    for number in range(3):
        sha = repository.commit(f"commit {number}", {"a": str(number)})

    shallow = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "1")
    deeper = await unpack(CheckoutSpec(repository.path, REMOTE, depth=2), tmp_path / "2")
    whole = await unpack(CheckoutSpec(repository.path, REMOTE, depth=0), tmp_path / "0")

    assert git(shallow, "log", "--format=%H %s").split("\n") == [f"{sha} commit 2", ""]
    assert git(deeper, "log", "--format=%s").split("\n") == ["commit 2", "commit 1", ""]
    assert git(whole, "log", "--format=%s").split("\n") == ["commit 2", "commit 1", "commit 0", ""]


async def test_the_branch_is_the_same_and_its_remote_is_githubs(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("checkout", "-q", "-b", 'odd"name/x')

    out = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "out")

    assert git(out, "status", "--short", "--branch") == '## odd"name/x...origin/odd"name/x\n'
    assert git(out, "remote", "get-url", "origin").strip() == REMOTE


async def test_a_detached_head_stays_detached(repository: Repository, tmp_path: Path) -> None:
    sha = repository.commit("one", {"a": "1"})
    repository.commit("two", {"a": "2"})
    repository.git("checkout", "-q", sha)

    out = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "out")

    assert git(out, "rev-parse", "HEAD").strip() == sha
    assert git(out, "rev-parse", "--abbrev-ref", "HEAD").strip() == "HEAD"
    assert git(out, "status", "--porcelain") == ""


async def test_tags_come_when_asked_for_or_with_all_history(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("tag", "v1")

    without = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "1")
    asked = await unpack(CheckoutSpec(repository.path, REMOTE, tags=True), tmp_path / "2")
    whole = await unpack(CheckoutSpec(repository.path, REMOTE, depth=0), tmp_path / "3")

    assert git(without, "tag") == ""
    assert git(asked, "tag") == git(whole, "tag") == "v1\n"


async def test_nothing_private_goes_along(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("remote", "add", "origin", "https://user:hunter2@example.org/octo/hello")
    repository.git("config", "http.extraheader", "AUTHORIZATION: basic hunter2")
    (repository.path / "secret").write_text("hunter2-in-the-stash")
    repository.git("add", "secret")
    repository.git("stash", "-q")
    hook = repository.path / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")

    out = await unpack(CheckoutSpec(repository.path, REMOTE, depth=0), tmp_path / "out")

    inside = [path for path in (out / ".git").rglob("*") if path.is_file()]
    assert not any(
        b"hunter2" in path.read_bytes() or str(tmp_path) in path.read_text("latin-1") for path in inside
    )
    assert not {"hooks", "logs", "FETCH_HEAD"} & {path.name for path in (out / ".git").iterdir()}
    assert "stash" not in git(out, "for-each-ref")
    assert git(out, "config", "--local", "--list").count("extraheader") == 0


async def test_nothing_of_the_repository_is_run(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1", ".gitattributes": "* filter=evil\n"})
    (repository.path / "a").write_text("changed")
    trap = tmp_path / "trap"
    marker = tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {marker}\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "uploadpack.packObjectsHook"):
        repository.git("config", key, str(trap))

    await read(CheckoutSpec(repository.path, REMOTE))

    assert not marker.exists()


async def test_ignored_files_can_be_included(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {".gitignore": "dist/\n.env\nother\n", "a": "1"})
    (repository.path / "dist/sub").mkdir(parents=True)
    (repository.path / "dist/sub/wheel").write_text("w")
    (repository.path / ".env").write_text("e")
    (repository.path / "other").write_text("o")

    out = await unpack(CheckoutSpec(repository.path, REMOTE, include=("dist", "./.env")), tmp_path / "out")

    assert files(out) == {".gitignore", "a", "dist/sub/wheel", ".env"}


@pytest.mark.parametrize(
    ("path", "message"), [("../x", "outside"), ("/etc", "outside"), ("nope", "is not in")]
)
async def test_what_cannot_be_included_is_named(repository: Repository, path: str, message: str) -> None:
    with pytest.raises(CheckoutError, match=message):
        await read(CheckoutSpec(repository.path, REMOTE, include=(path,)))


async def test_a_repository_without_a_commit(repository: Repository, tmp_path: Path) -> None:
    (repository.path / "a").write_text("1")

    out = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "out")

    assert git(out, "status", "--porcelain") == "?? a\n"


async def test_a_folder_that_is_no_repository_is_sent_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "empty").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / ".gitignore").write_text("a\n")
    (folder / "loop").symlink_to(".")

    out = await unpack(CheckoutSpec(folder, REMOTE), tmp_path / "out")

    assert sorted(path.name for path in out.iterdir()) == [".gitignore", "a", "empty", "loop"]


async def test_a_folder_within_a_repository_has_no_history(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"sub/a": "1", "sub/.gitignore": "b", "top": "1"})
    (repository.path / "sub/b").write_text("ignored")

    out = await unpack(CheckoutSpec(repository.path / "sub", REMOTE), tmp_path / "out")

    assert sorted(path.name for path in out.iterdir()) == [".gitignore", "a"]


async def test_submodules_are_empty_folders_unless_asked_for(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1"})
    inner = repository.path / "vendor"
    inner.mkdir()
    git(inner, "init", "-q", "-b", "main")
    (inner / "lib").write_text("1")
    git(inner, "add", "lib")
    git(inner, "commit", "-q", "-m", "lib")
    repository.git("add", "vendor")
    repository.git("commit", "-q", "-m", "two")

    without = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "1")
    along = await unpack(CheckoutSpec(repository.path, REMOTE, submodules=True), tmp_path / "2")

    assert list((without / "vendor").iterdir()) == []
    assert files(along) == {"a", "vendor/lib"}


async def test_a_repository_inside_that_is_not_tracked_goes_along_without_its_history(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit("one", {"a": "1"})
    inner = repository.path / "clone"
    inner.mkdir()
    git(inner, "init", "-q", "-b", "main")
    (inner / "lib").write_text("1")
    git(inner, "add", "lib")
    git(inner, "commit", "-q", "-m", "lib")

    out = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "out")

    assert files(out) == {"a", "clone/lib"}
    assert not (out / "clone/.git").exists()


async def test_names_of_all_kinds(repository: Repository, tmp_path: Path) -> None:
    names = ["sp ace", "new\nline", "é" * 60, os.fsdecode(b"bad\xff"), "deep/" * 40 + "x", "-dash", "a:b"]
    repository.commit("one", dict.fromkeys(names, "1"))

    out = await unpack(CheckoutSpec(repository.path, REMOTE), tmp_path / "out")

    assert files(out) == set(names)


async def test_a_worktree_is_a_repository_too(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "side tree"))

    out = await unpack(CheckoutSpec(tmp_path / "side tree", REMOTE), tmp_path / "out")

    assert git(out, "status", "--short", "--branch") == "## side...origin/side\n"


async def test_pieces_are_bounded(repository: Repository) -> None:
    repository.commit("one", {"small": "1"})
    with (repository.path / "large").open("wb") as file:
        file.truncate(5 * PIECE + 100)
    (repository.path / ".git/info").mkdir(exist_ok=True)

    sizes = [len(piece) async for piece in stream(CheckoutSpec(repository.path, REMOTE))]

    assert max(sizes) <= 2 * PIECE
    assert sum(sizes) > 5 * PIECE


async def test_a_file_that_shrinks_meanwhile_keeps_the_stream_whole(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository.path / "a").write_text("long content")
    (repository.path / "b").write_text("b")
    header = checkout._header

    def shrink(entry: checkout._Entry, status: os.stat_result, link: str = "") -> bytes:
        if entry.name == "a":
            entry.path.write_text("short")
        return header(entry, status, link)

    monkeypatch.setattr(checkout, "_header", shrink)
    with tarfile.open(fileobj=io.BytesIO(await read(CheckoutSpec(repository.path, REMOTE)))) as archive:
        contents = {
            name: (file.read() if (file := archive.extractfile(name)) else b"") for name in ("a", "b")
        }

    assert contents == {"a": b"short".ljust(12, b"\0"), "b": b"b"}


async def test_a_broken_repository_is_named(repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    for path in (repository.path / ".git/objects").rglob("*"):
        if path.is_file():
            path.unlink()

    with pytest.raises(CheckoutError, match="git cannot read the repository"):
        await read(CheckoutSpec(repository.path, REMOTE))


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_checkout_that_is_given_up_leaves_nothing(repository: Repository, scratch: Path) -> None:
    repository.commit("one", {"a": "1"})
    pieces = stream(CheckoutSpec(repository.path, REMOTE))

    await anext(pieces)
    assert left(scratch)
    await pieces.aclose()

    assert not left(scratch)


@pytest.mark.parametrize("turns", [1, 3, 30, 300])
async def test_a_checkout_that_is_cancelled_leaves_nothing(
    repository: Repository, scratch: Path, turns: int
) -> None:
    repository.commit("one", {"a": "1"})
    task = asyncio.create_task(read(CheckoutSpec(repository.path, REMOTE)))
    for _ in range(turns):
        await asyncio.sleep(0)

    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert not left(scratch)


def test_what_a_killed_process_left_is_removed(scratch: Path) -> None:
    mine = scratch / (checkout._prefix() + "x")
    dead = scratch / f"cloche-checkout-{os.getpid()}-1-x"
    for folder in (mine, dead):
        (folder / "clone").mkdir(parents=True)

    remove_stale()

    assert list(scratch.iterdir()) == [mine]
    (mine / "clone").rmdir()
    mine.rmdir()
