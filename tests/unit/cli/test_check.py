"""The commands that look at workflows and expressions without running them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from cloche.cli.root import cloche
from cloche.errors import EXIT_SUCCESS, EXIT_USAGE, UsageError, WorkflowError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "on: push\njobs:\n  a:\n    runs-on: x\n  b: {needs: a, runs-on: x}\n"
BAD = "on: push\njobs:\n  a:\n    run-on: x\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    (folder / "good.yml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return folder


def call(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cloche, arguments, input=text)


def test_check_takes_the_repositorys_workflows(repository: Path) -> None:
    result = call("check")
    assert (result.exit_code, result.output) == (EXIT_SUCCESS, "1 file checked: nothing is wrong\n")
    (repository / "bad.yaml").write_text(BAD)
    assert call("check").exit_code == EXIT_USAGE
    assert call("check", str(repository / "good.yml")).exit_code == EXIT_SUCCESS
    assert "2 files" in call("check", str(repository)).output


@pytest.mark.parametrize("form", ["json", "sarif"])
def test_check_writes_for_programs(repository: Path, form: str) -> None:
    assert json.loads(call("check", "--output", form).output)


def test_check_says_that_there_is_nothing(tmp_path: Path) -> None:
    result = call("check", "-C", str(tmp_path))
    assert isinstance(result.exception, UsageError)


def test_check_answers_batches() -> None:
    rows = json.dumps({"content": GOOD}) + "\n" + json.dumps({"content": BAD}) + "\n"
    answers = [json.loads(line) for line in call("check", "--batch", text=rows).output.splitlines()]
    assert [answer["ok"] for answer in answers] == [True, False]
    assert "template" in answers[0]
    assert "template" not in call("check", "--batch", "--no-template", text=rows).output


def test_eval_prints_the_value(tmp_path: Path) -> None:
    context = tmp_path / "context.json"
    context.write_text('{"github": {"ref": "main", "n": [1, 2.5]}}')
    assert call("eval", "1 < 2").output == "true\n"
    assert call("eval", "on ${{ github.ref }}", "--context", str(context)).output == "on main\n"
    assert call("eval", "github.n", "--context", str(context)).output == "[\n  1,\n  2.5\n]\n"
    assert json.loads(call("eval", "1", "--output", "json").output) == {
        "kind": "Number",
        "value": 1,
        "str": "1",
    }
    assert call("eval", text="github.ref == null\n").output == "true\n"


def test_eval_shows_where_it_is_wrong() -> None:
    result = call("eval", "1 == foo")
    assert result.exit_code == EXIT_USAGE
    assert "  1 | 1 == foo\n    |      ^^^\n" in result.stderr


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000])
def test_eval_refuses_contexts_that_are_none(tmp_path: Path, content: str) -> None:
    context = tmp_path / "context.json"
    context.write_text(content)
    assert isinstance(call("eval", "1", "--context", str(context)).exception, UsageError)


def test_eval_answers_batches() -> None:
    output = call("eval", "--batch", text='{"id": 7, "expr": "1"}\n').output
    assert json.loads(output) == {"id": 7, "ok": True, "kind": "Number", "value": 1, "str": "1"}


def test_graph_shows_the_order(repository: Path) -> None:
    assert call("graph", "good").output == ".github/workflows/good.yml\n  a\n  │\n  b  after a\n"
    assert "j0 --> j1" in call("graph", "--mermaid").output


def test_graph_of_a_bad_workflow_says_why(repository: Path) -> None:
    (repository / "bad.yml").write_text(BAD)
    assert isinstance(call("graph").exception, WorkflowError)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope.yml"], "there is no nope.yml"),
        (["-C", "nowhere"], "there is no nowhere"),
        (["empty"], "there is no workflow in empty"),
    ],
)
def test_what_is_not_there_is_said_as_that(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = call("check", *arguments)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
