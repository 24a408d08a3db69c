"""Workflows, actions and expressions with pieces of chance taken out, put in and mixed up; ``make soak`` runs it.

``CLOCHE_SOAK_SEED`` repeats it all; a failure names the row.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloche.check.batch import check_row, rows
from cloche.check.values import eval_row
from tests.e2e.endings import chance
from tests.soak.conftest import SEED

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

SECONDS = int(os.environ.get("CLOCHE_SOAK_FUZZ_SECONDS", "60"))
SLOWEST = 5.0
"""Seconds that one row may take on a busy machine."""
MOST_MEMORY = 64 * 1024
"""KiB of a process that has answered all rows of a kind."""

REPOSITORY = Path(__file__).parents[2]
WORKFLOW = """\
name: All
run-name: run ${{ github.actor }}
on:
  push: {branches: [main], paths-ignore: ['**.md']}
  workflow_dispatch:
    inputs:
      a: {type: choice, options: [x, y], default: x}
  workflow_call:
    inputs: {b: {type: number, default: 1}}
    secrets: {s: {required: true}}
    outputs: {o: {value: '${{ jobs.one.outputs.o }}'}}
env: &env {A: 1, B: '${{ vars.b }}'}
permissions: {contents: read}
concurrency: {group: 'g-${{ github.ref }}', cancel-in-progress: true}
jobs:
  one:
    runs-on: [self-hosted, '${{ matrix.os }}']
    if: ${{ !cancelled() && github.ref == 'x' }}
    strategy:
      matrix: {os: [a, b], v: [1, 2.5], include: [{os: a, w: x}], exclude: [{v: 1, os: b}]}
    container: {image: 'x:1', env: *env, ports: [80]}
    services: {db: {image: pg}}
    outputs: {o: '${{ steps.s.outputs.v }}'}
    environment: {name: e, url: '${{ steps.s.outputs.u }}'}
    steps:
      - {id: s, uses: a/b@v1, with: {k: '${{ toJSON(needs) }}'}, background: true}
      - run: |
          echo ${{ fromJSON('[1]')[0] }} ${{ hashFiles('x') }}
        shell: bash
      - wait: [s]
      - parallel: [{run: a}, {uses: ./x}]
  two:
    needs: one
    uses: ./c.yml
    with: {b: 2}
    secrets: inherit
"""
ACTION = """\
name: a
description: b
inputs: {i: {default: '${{ github.token }}'}}
outputs: {o: {value: '${{ steps.s.outputs.x }}'}}
runs:
  using: composite
  steps: [{id: s, run: 'echo ${{ inputs.i }}', shell: sh, if: always()}]
"""
EXPRESSION = (
    "format('{0} {1}', toJSON(github.*.a), join(fromJSON(env.a), ', ')) != case(a.b[0], 'x''y', 0x1f) || !x"
)
PIECES = [
    *(
        "&a ",
        "*a",
        "*env",
        "<<: *env",
        "!!int ",
        "!!str ",
        "? ",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "|",
        ">",
        "#",
        "'",
        '"',
    ),
    *(
        "${{",
        "}}",
        "${{ insert }}",
        "${{ '",
        "\n",
        "\r\n",
        "\t",
        " ",
        "\0",
        "\ufeff",
        "\u2028",
        "é",
        "😀",
        "\ud7ff",
        "~",
    ),
    *(
        "(",
        ")",
        ".*",
        "==",
        "&&",
        "!",
        "'",
        "0x",
        "-",
        ",",
        "1e999",
        ".inf",
        "null",
        "true",
        "0" * 400,
        "a" * 2000,
    ),
]


def mutated(text: str, draw: random.Random) -> str:
    for _ in range(draw.choice([1, 1, 2, 3, 8, 30])):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice([0, 0, 1, 3, 20, 100]))
        middle = draw.choice(
            [*PIECES, "", text[start:end] * draw.choice([2, 5, 40]), draw.choice(PIECES) * 300]
        )
        text = text[:start] + middle + text[end:]
    return text


def workflow_row(draw: random.Random) -> dict[str, Any]:
    text = mutated(WORKFLOW, draw)
    called = mutated(WORKFLOW, draw) if draw.random() < 0.5 else text
    return {
        "content": text,
        "name": "w.yml",
        "depth": 1,
        "files": {"./c.yml": called},
        "features": {"all": True},
    }


def action_row(draw: random.Random) -> dict[str, Any]:
    return {"content": mutated(ACTION, draw), "name": "action.yml"}


def expression_row(draw: random.Random) -> dict[str, Any]:
    context = {
        "github": {"x": {"a": [1, "b"]}, "y": None},
        "env": {"a": '["x"]'},
        "a": {"b": [True]},
        "x": "é",
    }
    return {draw.choice(["expr", "template"]): mutated(EXPRESSION, draw), "context": context}


KINDS: dict[str, tuple[Callable[[random.Random], dict[str, Any]], Callable[[str], dict[str, Any]]]] = {
    "workflows": (workflow_row, check_row),
    "actions": (action_row, check_row),
    "expressions": (expression_row, eval_row),
}


def lines(kind: str) -> Iterator[str]:
    draw = chance(SEED, kind)
    while True:
        yield json.dumps(KINDS[kind][0](draw))


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_an_answer_soon(kind: str) -> None:
    answer = KINDS[kind][1]
    until = time.monotonic() + SECONDS
    for line in lines(kind):
        started = time.monotonic()
        answers = [json.loads(text) for text in rows(io.BytesIO(line.encode() + b"\n"), answer)]
        took = time.monotonic() - started
        assert len(answers) == 1, line
        assert isinstance(answers[0]["ok"], bool), line
        assert took < SLOWEST, line
        if time.monotonic() > until:
            break


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_take_little_memory(tmp_path: Path, kind: str) -> None:
    command = "eval" if kind == "expressions" else "check"
    source = tmp_path / "rows"
    with source.open("w") as stream:
        stream.writelines(f"{line}\n" for line, _ in zip(lines(kind), range(3000), strict=False))
    told = subprocess.run(
        [sys.executable, "-c", _MEASURE, source, tmp_path / "answers", sys.executable, command],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    assert int(told.stdout) < MOST_MEMORY
    assert (tmp_path / "answers").read_bytes().count(b"\n") == 3000


_MEASURE = """
import resource, subprocess, sys
source, answers, python, command = sys.argv[1:]
with open(source, "rb") as rows, open(answers, "wb") as out:
    subprocess.run([python, "-m", "cloche.cli", command, "--batch"], stdin=rows, stdout=out, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""From a process that is small itself: what is measured begins with the size of who starts it."""
