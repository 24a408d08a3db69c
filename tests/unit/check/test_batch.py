import io
import json
from pathlib import Path
from typing import Any

import pytest

from cloche.check import batch
from cloche.check.batch import check_row, rows
from cloche.errors import UsageError

GOOD = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n"
CALLER = "on: push\njobs:\n  call:\n    uses: ./.github/workflows/called.yml\n"
CALLED = "on: workflow_call\njobs:\n  inner:\n    runs-on: x\n"


def answers(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rows(io.BytesIO(data), check_row)]


def row(**fields: Any) -> str:
    return json.dumps(fields)


def test_a_row_answers_in_the_shape_of_githubs_parser() -> None:
    answer = check_row(row(path="dir/ci.yml", content=GOOD))
    assert answer["path"] == "dir/ci.yml"
    assert answer["ok"] is True
    assert answer["errors"] == []
    assert answer["jobs"] == [
        {
            "id": "a",
            "type": "job",
            "needs": [],
            "steps": 1,
            "step_ids": ["__run"],
            "if": "success()",
            "matrix": None,
            "container": False,
            "services": False,
        }
    ]
    assert answer["template"]["jobs"][0]["steps"][0]["run"] == "echo"


def test_jobs_are_listed_where_only_what_they_say_is_wrong() -> None:
    answer = check_row(row(path="ci.yml", content=GOOD + "  b: {needs: none, runs-on: x}\n"))
    assert answer["ok"] is False
    assert [job["id"] for job in answer["jobs"]] == ["a", "b"]
    assert check_row(row(path="ci.yml", content=GOOD.replace("runs-on", "run-on")))["jobs"] == []


def test_without_template_there_is_none() -> None:
    assert "template" not in check_row(row(content=GOOD), template=False)


def test_errors_name_the_file_by_its_name() -> None:
    answer = check_row(row(path="dir/ci.yml", content="on: pusch\njobs: {}\n"))
    assert answer["errors"][0] == "ci.yml (Line: 1, Col: 5): Unexpected value 'pusch'"
    assert answer["template"] == {"errors": [{"Message": error} for error in answer["errors"]]}


def test_a_path_alone_is_read_from_disk(tmp_path: Path) -> None:
    file = tmp_path / "ci.yml"
    file.write_text(GOOD)
    assert check_row(str(file))["ok"] is True


def test_a_file_that_is_not_there_is_an_answer(tmp_path: Path) -> None:
    answer = check_row(str(tmp_path / "none.yml"))
    assert answer["ok"] is False
    assert "No such file" in answer["errors"][0]


def test_an_action_is_known_by_its_name() -> None:
    action = "name: a\ndescription: b\nruns: {using: node24, main: m.js}\ninputs: {x: {}}\n"
    answer = check_row(row(path="x/action.yml", content=action))
    assert (answer["ok"], answer["using"], answer["inputs"]) == (True, "node24", 1)


def test_called_files_come_from_the_row() -> None:
    called = check_row(
        row(path="c.yml", content=CALLER, depth=1, files={"./.github/workflows/called.yml": CALLED})
    )
    assert [job["id"] for job in called["template"]["jobs"][0]["jobs"]] == ["inner"]


def test_called_files_come_from_the_repository_of_the_path(tmp_path: Path) -> None:
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    (folder / "caller.yml").write_text(CALLER)
    (folder / "called.yml").write_text(CALLED)
    answer = check_row(row(path=str(folder / "caller.yml"), depth=1))
    assert answer["ok"] is True
    assert answer["template"]["jobs"][0]["jobs"]


def test_calls_that_multiply_a_text_have_no_template() -> None:
    called = CALLED + "".join(f"  j{n}: {{runs-on: x}}\n" for n in range(3000))
    callers = "".join(f"  c{n}:\n    uses: ./c.yml\n" for n in range(40))
    answer = check_row(row(content=f"on: push\njobs:\n{callers}", depth=1, files={"./c.yml": called}))
    assert answer["ok"] is True
    assert answer["template"] is None
    callers = "".join(f"  c{n}:\n    uses: ./c.yml\n" for n in range(400))
    answer = check_row(row(content=f"on: push\njobs:\n{callers}", depth=1, files={"./c.yml": called}))
    assert "counted at each call" in answer["errors"][0]


def test_calls_are_left_alone_without_depth() -> None:
    assert check_row(row(path="c.yml", content=CALLER))["ok"] is True


def test_a_called_file_that_is_nowhere_is_an_error() -> None:
    answer = check_row(row(path="c.yml", content=CALLER, depth=1))
    assert answer["errors"] == ["c.yml (Line: 4, Col: 11): Unable to find reusable workflow"]


def test_the_repositorys_folder_is_never_left(tmp_path: Path) -> None:
    folder = tmp_path / "repo/.github/workflows"
    folder.mkdir(parents=True)
    (tmp_path / "secret.yml").write_text(CALLED)
    (folder / "c.yml").write_text(CALLER.replace("./.github/workflows/called.yml", "./../secret.yml"))
    answer = check_row(row(path=str(folder / "c.yml"), depth=1))
    assert "Unable to find reusable workflow" in answer["errors"][0]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"path": 1}',
        b'{"content": ["x"]}',
        b"{}",
        b'{"content": "\\ud800", "options": [], "features": 3, "files": "x"}',
        b"\x00",
    ],
)
def test_no_row_ends_the_batch(line: bytes) -> None:
    found = answers(line + b"\n" + row(content=GOOD).encode())
    assert [answer["ok"] for answer in found] == [False, True]
    assert found[0]["errors"]


def test_a_row_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_LINE", 200)
    found = answers(b"x" * 1000 + b"\n" + row(content=GOOD).encode())
    assert [answer["ok"] for answer in found] == [False, True]


def test_blank_lines_have_no_answer() -> None:
    assert answers(b"\n  \n") == []


def test_rows_that_make_no_sense_are_told_apart() -> None:
    with pytest.raises(UsageError, match="`path` or `content`"):
        check_row("{}")


def test_limits_of_a_row_hold() -> None:
    answer = check_row(row(path="a.yml", content=GOOD, options={"max-depth": 2}))
    assert answer["errors"] == ["a.yml: Maximum object depth exceeded"]
    answer = check_row(row(path="a.yml", content=GOOD, options={"max-job-limit": 1}))
    assert answer["ok"] is True
    deep = {"max-depth": 1_000_000, "max-file-size": 1_000_000_000, "max-job-limit": -1}
    answer = check_row(row(path="a.yml", content="[" * 60_000, options=deep))
    assert answer["errors"] == ["a.yml: Maximum object depth exceeded"]
