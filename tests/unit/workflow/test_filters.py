"""GitHub's filter patterns: its cheat sheet, and a regular expression as the model."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.workflow.filters import PatternError, compile_pattern, ignored, included


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("feature/*", ["feature/my-branch"], ["feature/a/b", "feature", "features/x"]),
        ("feature/**", ["feature/beta-a/my-branch"], ["feature"]),
        ("**", ["a", "all/the/branches"], []),
        ("v[12].[0-9]+.[0-9]+", ["v1.10.1", "v2.0.0"], ["v3.0.0", "v1.x.1", "v1.1"]),
        ("*.jsx?", ["page.js", "page.jsx"], ["a/page.js", "page.jsxx"]),
        ("**/docs/**", ["docs/a", "x/y/docs/z"], ["mydocs/a"]),
        ("docs/**/*.md", ["docs/README.md", "docs/a/b.md"], ["docs/a.txt"]),
        ("**-post.md", ["my-post.md", "path/their-post.md"], ["post.md"]),
        (r"c\+\+", ["c++"], ["cc"]),
        (r"\!a", ["!a"], ["a"]),
        ("[A-Cx]", ["B", "x"], ["D", "b", "Bx"]),
    ],
)
def test_the_language(pattern: str, fits: list[str], does_not: list[str]) -> None:
    compiled = compile_pattern(pattern)
    assert [name for name in fits if not compiled.matches(name)] == []
    assert [name for name in does_not if compiled.matches(name)] == []


@pytest.mark.parametrize(
    "pattern", ["", "!", "a\\", "[", "[]", "[z-a]", "[a-Z]", "+a", "?", "a*+", "a??", "a+?"]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(PatternError, match="pattern"):
        compile_pattern(pattern)


def test_the_last_pattern_that_fits_decides() -> None:
    assert included(["releases/**", "!releases/**-alpha"], ["releases/10"])
    assert not included(["releases/**", "!releases/**-alpha"], ["releases/10-alpha"])
    assert included(["*.md", "!README.md", "README*"], ["README.md"])
    assert not included(["!a"], ["b"])


def test_one_file_that_is_not_ignored_is_enough_to_run() -> None:
    assert ignored(["docs/**"], ["docs/a", "docs/b"])
    assert not ignored(["docs/**"], ["docs/a", "src/b"])


def test_a_pattern_cannot_make_matching_slow() -> None:
    assert not compile_pattern("*a" * 60 + "b").matches("a" * 1000)


def model(pattern: str) -> re.Pattern[str]:
    """The same pattern as a regular expression."""
    parts = re.findall(r"(?:^|(?<=/))\*\*/|\*\*|.", pattern)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "?", "+": "+"}
    return re.compile("".join(words.get(part, part) for part in parts), re.DOTALL)


@settings(max_examples=3 * settings().max_examples)
@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "a?", "b+", "/**/"]), min_size=1, max_size=6),
    st.text(alphabet="ab/", max_size=8),
)
def test_as_a_regular_expression_would(parts: list[str], name: str) -> None:
    pattern = re.sub(r"\*{3,}", "**", "".join(parts))
    assert compile_pattern(pattern).matches(name) == bool(model(pattern).fullmatch(name))


def test_conformance() -> None:
    folder = os.environ.get("CLOCHE_CONFORMANCE")
    if not folder:
        pytest.skip("CLOCHE_CONFORMANCE is not set: no conformance data to compare with")
    cases = json.loads((Path(folder) / "filter_patterns.json").read_text())
    wrong = [
        case
        for case in cases
        if included(case["patterns"], case["inputs"]) is case["skip"]
        or ignored(case["patterns"], case["inputs"]) is not case["filter"]
    ]
    assert cases
    assert wrong == []
