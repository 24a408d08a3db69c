"""Nothing that anybody writes ends in a traceback, takes much memory or takes long."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.check.batch import check_row, rows
from cloche.check.values import eval_row

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "on: push\njobs:\n  a:\n    runs-on: x\n"
MOST_MEMORY = 64 * 1024  # KiB
MOST_SECONDS = 20

WORDS = [
    *(
        "on",
        "jobs",
        "a",
        "runs-on",
        "steps",
        "run",
        "uses",
        "with",
        "env",
        "if",
        "needs",
        "strategy",
        "matrix",
    ),
    *(
        "include",
        "exclude",
        "push",
        "workflow_call",
        "inputs",
        "secrets",
        "inherit",
        "wait",
        "parallel",
        "<<",
    ),
    *("${{ github.ref }}", "${{ x", "${{ insert }}", "${{ fromJSON('[1]') }}", "a/b@c", "./c.yml", "", "~"),
]
scalars = st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.none(), st.booleans(), st.floats())
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
    ),
    max_leaves=25,
)
EXPRESSIONS = [
    *(
        "github",
        "env",
        ".",
        ".*",
        "[",
        "]",
        "(",
        ")",
        "'a'",
        "'",
        "1",
        "0x",
        "-",
        "==",
        "&&",
        "||",
        "!",
        ",",
        "null",
    ),
    *("contains", "format", "join", "toJSON", "fromJSON", "case", "success()", "${{", "}}", " ", "'{0}{1}'"),
]


@given(st.one_of(st.text(), trees.map(json.dumps)))
def test_any_text_has_a_verdict(text: str) -> None:
    answer = check_row(json.dumps({"content": text, "name": "w.yml", "depth": 1, "files": {"./c.yml": text}}))
    assert answer["ok"] is not bool(answer["errors"])


@given(trees, st.booleans())
def test_any_workflow_has_a_verdict(tree: object, action: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    whole = {"on": tree, "jobs": {"a": tree, "b": {"runs-on": "x", "steps": tree, "strategy": tree}}}
    name = "action.yml" if action else "w.yml"
    row = {"content": json.dumps(whole), "name": name, "features": {"all": True}}
    answer = check_row(json.dumps(row))
    json.dumps(answer, allow_nan=False)


@given(st.binary(max_size=200))
def test_any_line_has_an_answer(line: bytes) -> None:
    for answer in (check_row, eval_row):
        for text in rows(io.BytesIO(line + b"\n"), answer):
            assert isinstance(json.loads(text), dict)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(EXPRESSIONS), max_size=14).map("".join), trees, st.booleans())
def test_any_expression_has_an_outcome(text: str, context: object, template: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    key = "template" if template else "expr"
    line = json.dumps({"id": 1, key: text, "context": {"github": context, "env": {"a": "b"}}})
    for answer in rows(io.BytesIO(line.encode() + b"\n"), eval_row):
        assert json.loads(answer)["ok"] in {True, False}


FILES: dict[str, str | bytes] = {
    "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)),
    "ten megabytes": HEAD + "#" + "x" * 10_000_000,
    "as many events as may be": HEAD
    + "    env:\n"
    + "".join(f"      A{i}: ${{{{ 1 }}}}\n" for i in range(24_980)),
    "nesting of sixty thousand": "[" * 60_000,
    "nested mappings": "{a: " * 60_000,
    "a matrix of a million legs": f"{HEAD}    strategy:\n      matrix:\n"
    + "".join(f"        v{i}: [{','.join(map(str, range(10)))}]\n" for i in range(6)),
    "a matrix with many filters": f"{HEAD}    strategy:\n      matrix:\n        v: [{'1,' * 9000}1]\n"
    "        exclude:\n" + "          - {v: 1}\n" * 8000,
    "a chain of five thousand jobs": "on: push\njobs:\n  j0: {runs-on: x}\n"
    + "".join(f"  j{i}: {{needs: j{i - 1}, runs-on: x}}\n" for i in range(1, 5000)),
    "thousands of needs that nobody meets": "on: push\njobs:\n"
    + "".join(f"  some-long-name-of-a-job-{i}: {{runs-on: x}}\n" for i in range(6000))
    + f"  a: {{runs-on: x, needs: [{', '.join(f'some-long-nane-of-a-job-{i}' for i in range(6000))}]}}\n",
    "thousands of steps to wait for": f"{HEAD}    steps:\n"
    + "".join(f"      - {{id: some-long-name-of-a-step-{i}, run: x}}\n" for i in range(5000))
    + "".join(f"      - wait: some-long-nane-of-a-step-{i}\n" for i in range(200)),
    "brackets without end": f"{HEAD}    name: ${{{{ {'(' * 20_000} }}}}\n",
    "expressions without end": f"{HEAD}    name: {'${{ 1 }}' * 100_000}\n",
    "random bytes": bytes(range(256)) * 4000,
}
_MEASURE = (
    "import resource, subprocess, sys\n"
    "ended = subprocess.run(sys.argv[1:], capture_output=True)\n"
    "print(ended.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, b'Traceback' in ended.stderr)\n"
)


def measure(*arguments: str) -> tuple[int, int, bool]:
    """Run cloche from a process that is small itself: its exit code, its memory in KiB, whether it broke down."""
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "cloche.cli", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=MOST_SECONDS)
    code, memory, broke = told.stdout.split()
    return int(code), int(memory), broke == "True"


@pytest.mark.parametrize("name", FILES)
def test_a_file_takes_little_memory_and_time(tmp_path: Path, name: str) -> None:
    content = FILES[name]
    file = tmp_path / "w.yml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.monotonic()
    code, memory, broke = measure("check", str(file))
    assert code in {0, 2}
    assert not broke
    assert memory < MOST_MEMORY
    assert time.monotonic() - started < MOST_SECONDS


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 20_000,
        "!" * 20_000 + "1",
        "a" * 1_000_000,
        "format('{0}{0}{0}{0}{0}{0}{0}{0}', " * 8 + "'xxxxxxxxxxxx'" + ")" * 8,
        "join(fromJSON(format('[{0}]', '" + "1,1,1,1," * 2000 + "1')), '" + "x" * 1000 + "')",
    ],
    ids=len,
)
def test_an_expression_takes_little_memory(expression: str) -> None:
    arguments = ("eval", expression) if len(expression) < 100_000 else ("eval", expression[:100_000])
    code, memory, broke = measure(*arguments)
    assert code in {0, 1, 2}
    assert not broke
    assert memory < MOST_MEMORY


def test_calls_in_a_circle_end() -> None:
    call = "on: [push, workflow_call]\njobs:\n  a:\n    uses: ./c.yml\n"
    answer = check_row(json.dumps({"content": call, "name": "c.yml", "depth": 1, "files": {"./c.yml": call}}))
    assert answer["errors"] == ["Nested reusable workflow depth exceeded 10."]
