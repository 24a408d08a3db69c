"""The repository as a whole: what is true of no single module."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import grimp
import pytest

import cloche
from cloche.image.process import _PACKAGE_OF
from cloche.workflow.parse import parse_workflow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "packaging" / "requirements-dev.txt").read_text()
WORKFLOWS = sorted([*ROOT.glob("examples/*/.github/workflows/*.yml"), *ROOT.glob(".github/workflows/*.yml")])
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PACKAGES = {
    name
    for line in (ROOT / "packaging" / "apt.txt").read_text().splitlines()
    if (name := line.partition("#")[0].strip())
}
STEP_LOOP = ["steps", "run_step", "checkout_step"]
ALLOCATORS = ("cloche.session", "cloche.pool", "cloche.image", "cloche.vm.provider", "cloche.vm.qemu")
"""Rooms that nothing under the step loop may reach, by whatever chain of imports."""


def run(*argv: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False, timeout=100
    )


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    hosts = ["pypi.org", "pythonhosted.org", "npmjs.org", "deb.debian.org", "archive.ubuntu.com"]
    forbidden = re.compile("|".join([*map(re.escape, hosts), r"/root/", r"(?<!runner)/work/(?:main|shared)"]))
    listed = run("git", "ls-files", "-z")
    if listed.returncode:
        pytest.skip("not a git repository")
    files = [path for name in listed.stdout.split("\0") if (path := ROOT / name).is_file()]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        if path != Path(__file__)
        for match in forbidden.finditer(path.read_text(errors="replace"))
    ]
    assert found == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_of_ours_are_ones_that_cloche_runs(path: Path) -> None:
    workflow = parse_workflow(path.read_bytes(), path.name)
    assert "push" in workflow.triggers


def test_every_example_has_a_workflow_and_says_what_it_shows() -> None:
    examples = [path for path in (ROOT / "examples").iterdir() if path.is_dir() and path.name != "grafana"]
    assert {"hello", "matrix", "failing-test"} <= {path.name for path in examples}
    for example in examples:
        assert list(example.glob(".github/workflows/*.yml"))
        assert f"cloche run -C examples/{example.name}" in (example / "README.md").read_text()


def test_the_failing_test_fails_with_an_annotation() -> None:
    result = run(sys.executable, "-B", "run_tests.py", cwd=ROOT / "examples" / "failing-test")
    assert result.returncode == 1
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("::"))
    assert line.startswith("::error file=test_clock.py,line=21,title=test_clock.ClockTest.test_noon::0 != 12")


def test_packages_are_named_in_one_list() -> None:
    assert set(_PACKAGE_OF.values()) <= PACKAGES, "advice to install what set-up does not"
    for script in ("Makefile", "packaging/setup"):
        code = re.sub(r"#.*", "", (ROOT / script).read_text())
        named = {name for name in PACKAGES if "-" in name and re.search(rf"\b{name}\b", code)}
        assert named == set(), script


def test_pages_name_only_targets_that_exist() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(r"(?:^\$ |`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert named <= TARGETS


def test_the_version_is_the_same_everywhere() -> None:
    assert cloche.__version__ == PROJECT["project"]["version"]
    assert cloche.__version__ in run(BIN / "cloche", "--version").stdout


def test_everything_asked_for_is_locked_with_hashes() -> None:
    groups = PROJECT["dependency-groups"]
    asked = [*PROJECT["project"]["dependencies"], *groups["dev"], *groups["build"]]
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in asked}
    pins = re.findall(r"^([\w.-]+)==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", LOCK, re.MULTILINE)
    assert {name.replace(".", "-") for name in names} <= set(pins)
    assert len(pins) == len(re.findall(r"^\S", LOCK, re.MULTILINE))


def test_the_rooms_import_only_what_they_may() -> None:
    result = run(BIN / "lint-imports", "--no-logo", "--no-cache")
    assert result.returncode == 0, result.stdout


def test_nothing_under_the_step_loop_can_allocate() -> None:
    graph = grimp.build_graph("cloche", cache_dir=None)
    below = {f"cloche.execution.{name}" for name in STEP_LOOP}
    below |= {module for name in tuple(below) for module in graph.find_upstream_modules(name)}
    assert "cloche.vm.guest" in below
    assert [name for name in sorted(below) if name.startswith(ALLOCATORS)] == []
    for name in below:
        path = (ROOT / "src").joinpath(*name.split("."))
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        used = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
        assert used.isdisjoint({"allocate", "create_session"}), name


def test_failures_are_annotated_with_file_and_line(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_bad.py").write_text("def test_it():\n    x = 1\n    assert x == 2, 'two: 100%'\n")
    (tmp_path / "test_broken.py").write_text("def test_it(:\n")
    (tmp_path / "test_deep.py").write_text("import json\n\n\ndef test_it():\n    json.loads('{')\n")
    pytest_here = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path)
    result = run(*pytest_here, "--continue-on-collection-errors", cwd=tmp_path, GITHUB_ACTIONS="true")
    failed, broken, deep = sorted(line for line in result.stdout.splitlines() if line.startswith("::"))
    assert failed.startswith("::error file=test_bad.py,line=3,title=test_bad.py%3A%3Atest_it::")
    assert "two: 100%25%0A" in failed
    assert broken.startswith("::error file=test_broken.py,line=1,")
    assert deep.startswith("::error file=test_deep.py,line=4,"), "the test, not the standard library"
    assert "::error" not in run(*pytest_here, cwd=tmp_path, GITHUB_ACTIONS="").stdout
