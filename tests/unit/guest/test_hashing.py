from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.guest.hashing import Rules, hash_files


def digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()


def grow(base: Path, *names: str) -> Path:
    """Files whose content is their name."""
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return base


def names(*found: str) -> str:
    return digest(*(name.encode() for name in found))


TREE = ("a-b", "a.txt", "a/lib/x.py", "a/x.py", "b/x.py", "b/.y.py", "c", "d[1]", "e*")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a.txt"], ["a.txt"]),
        (["**/*.py"], ["a/lib/x.py", "a/x.py", "b/.y.py", "b/x.py"]),
        (["*.py"], []),
        (["*/*.py"], ["a/x.py", "b/.y.py", "b/x.py"]),
        (["a"], ["a/lib/x.py", "a/x.py"]),
        (["a/"], ["a/lib/x.py", "a/x.py"]),
        (["a/**"], ["a/lib/x.py", "a/x.py"]),
        (["a/**/x.py"], ["a/lib/x.py", "a/x.py"]),
        (["a/***/x.py"], ["a/lib/x.py"]),
        (["c/"], []),
        (["c/**"], ["c"]),
        (["?"], ["a/lib/x.py", "a/x.py", "b/.y.py", "b/x.py", "c"]),
        (["[bc]"], ["b/.y.py", "b/x.py", "c"]),
        (["[!ab]"], ["c"]),
        (["[^ab]"], ["c"]),
        (["d[1]"], []),
        ([r"d\[1]"], ["d[1]"]),
        (["d[[]1]"], ["d[1]"]),
        ([r"e\*"], ["e*"]),
        (["./a.txt"], ["a.txt"]),
        (["  a.txt  ", "", "# c"], ["a.txt"]),
        (["b\nc"], ["b/.y.py", "b/x.py", "c"]),
        (["c", "b"], ["c", "b/.y.py", "b/x.py"]),
        (["**", "!a", "!b/**", "!*[*\\]]"], ["a-b", "a.txt", "c"]),
        (["**/*.py", "!a", "a/lib"], ["a/lib/x.py", "b/.y.py", "b/x.py"]),
        (["!a", "!**"], []),
        (["! b", "c"], ["c"]),
        (["!!c"], ["c"]),
        (["missing", "c"], ["c"]),
    ],
    ids=str,
)
def test_patterns(tmp_path: Path, patterns: list[str], expected: list[str]) -> None:
    grow(tmp_path, *TREE)
    assert hash_files(str(tmp_path), patterns) == (names(*expected) if expected else "")


def test_names_come_in_the_order_of_their_bytes_folders_among_files(tmp_path: Path) -> None:
    grow(tmp_path, "a/z", "a-b", "a.txt", "B", "é", "z")
    assert hash_files(str(tmp_path), ["**"]) == names("B", "a/z", "a-b", "a.txt", "z", "é")


def test_patterns_are_searched_in_their_order_and_no_file_counts_twice(tmp_path: Path) -> None:
    grow(tmp_path, "a/x", "b/x", "b/y")
    assert hash_files(str(tmp_path), ["b/x", "a/*", "b/*"]) == names("a/x", "b/x", "b/y")
    assert hash_files(str(tmp_path), ["b", "a", "b/x"]) == names("b/x", "b/y", "a/x")


def test_absolute_patterns_work_inside_and_never_outside(tmp_path: Path) -> None:
    base = grow(tmp_path / "ws", "x")
    grow(tmp_path, "x", "ws-not")
    assert hash_files(str(base), [f"{base}/x"]) == names("x")
    assert hash_files(str(base), [f"{tmp_path}/**"]) == names("x")
    assert hash_files(str(base), [f"{tmp_path}/x"]) == ""


@pytest.mark.parametrize("pattern", ["../x", "a/../x", "a/./x", "/etc/../x"])
def test_dots_inside_a_pattern_are_refused_as_github_does(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        hash_files(str(tmp_path), [pattern])


def test_links_count_for_files_and_are_not_followed_to_folders(tmp_path: Path) -> None:
    grow(tmp_path, "real/x", "file")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(".")
    assert hash_files(str(tmp_path), ["**"]) == digest(b"file", b"file", b"real/x")
    assert hash_files(str(tmp_path), ["folder/**"]) == ""


def test_a_workspace_behind_a_link(tmp_path: Path) -> None:
    grow(tmp_path / "real", "x")
    (tmp_path / "ws").symlink_to("real")
    assert hash_files(str(tmp_path / "ws"), ["*"]) == names("x")


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    grow(tmp_path, "x")
    assert hash_files(str(tmp_path), ["**"]) == names("x")


def test_a_workspace_that_is_not_there(tmp_path: Path) -> None:
    assert hash_files(str(tmp_path / "missing"), ["**"]) == ""


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9").write_bytes(b"x")
    assert hash_files(str(tmp_path), ["caf?"]) == digest(b"x")


def test_deep_trees(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 500)
    (tmp_path / deep).mkdir(parents=True)
    (tmp_path / deep / "x").write_bytes(b"x")
    assert hash_files(str(tmp_path), ["**/x"]) == digest(b"x")


part = st.lists(st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=3).map(
    "".join
)
simple_pattern = st.lists(part | st.just("**"), min_size=1, max_size=3).map("/".join)
name = st.text("ab.", min_size=1, max_size=3).filter(lambda text: text.strip("."))
path_in_tree = st.lists(name, min_size=1, max_size=3).map("/".join)


def matches_naively(path: str, pattern: str) -> bool:
    """Part by part, trying every depth for ``**``; a match of a folder above stands for the file."""

    def walk(parts: list[str], wanted: list[str]) -> bool:
        if not wanted:
            return True  # the rest is below a match
        if wanted[0] == "**":
            return any(walk(parts[skip:], wanted[1:]) for skip in range(len(parts) + 1))
        return bool(parts) and matches_part(parts[0], wanted[0]) and walk(parts[1:], wanted[1:])

    return walk(path.split("/"), pattern.split("/"))


def matches_part(text: str, pattern: str) -> bool:
    return re.fullmatch(fnmatch.translate(re.sub(r"\*+", "*", pattern)), text) is not None


@given(simple_pattern.filter(lambda p: not {".", ".."} & set(p.split("/"))), path_in_tree)
def test_one_pattern_against_a_naive_model(pattern: str, path: str) -> None:
    assert Rules("/ws", [pattern]).choose(f"/ws/{path}") == matches_naively(path, pattern)


@given(st.sets(path_in_tree, max_size=6), st.lists(simple_pattern, min_size=1, max_size=3))
def test_the_search_misses_nothing_that_the_rules_choose(paths: set[str], patterns: list[str]) -> None:
    allowed = [p for p in patterns if not {".", ".."} & set(p.split("/"))]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        made: list[str] = []
        for path in sorted(paths):
            if not any(f"{path}/".startswith(f"{m}/") or f"{m}/".startswith(f"{path}/") for m in made):
                grow(base, path)
                made.append(path)
        rules = Rules(folder, allowed)
        chosen = [path for path in made if rules.choose(f"{folder}/{path}")]
        found = hash_files(folder, allowed)
        assert bool(found) == bool(chosen)
        if len(chosen) == 1:
            assert found == names(*chosen)
