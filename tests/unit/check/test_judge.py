import json
from pathlib import Path

import pytest

from cloche.check.judge import Judged, judge
from cloche.check.sarif import as_sarif
from cloche.check.tell import as_json, as_text

GOOD = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n"
UNSUPPORTED = GOOD + "    environment: production\n"
BAD = "on: push\njobs:\n  a:\n    run-on: x\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / ".github/workflows"
    path.mkdir(parents=True)
    return path


def judged(folder: Path, text: str, name: str = "ci.yml") -> Judged:
    file = folder / name
    file.write_text(text)
    return judge(file, folder.parent.parent)


def test_a_good_file(folder: Path) -> None:
    found = judged(folder, GOOD)
    assert (found.path, found.ok, found.findings) == (".github/workflows/ci.yml", True, ())


def test_what_only_cloche_lacks_is_a_warning(folder: Path) -> None:
    found = judged(folder, UNSUPPORTED)
    assert found.ok
    assert [one.severity for one in found.findings] == ["warning"]


def test_what_github_refuses_is_an_error(folder: Path) -> None:
    found = judged(folder, BAD)
    assert not found.ok
    assert {one.severity for one in found.findings} == {"error"}


def test_filters_that_are_none_are_errors(folder: Path) -> None:
    assert not judged(folder, GOOD.replace("push", "{push: {branches: '**+'}}")).ok


def test_a_call_of_another_repository_is_left_alone(folder: Path) -> None:
    assert judged(folder, "on: push\njobs:\n  a:\n    uses: o/r/.github/workflows/x.yml@v1\n").ok


def test_what_is_wrong_in_a_called_file_is_told_of_the_caller(folder: Path) -> None:
    (folder / "called.yml").write_text(BAD.replace("push", "workflow_call"))
    found = judged(folder, "on: push\njobs:\n  a:\n    uses: ./.github/workflows/called.yml\n")
    assert not found.ok
    assert "called.yml (Line: 4, Col: 5): Unexpected value 'run-on'" in found.findings[0].diagnostic.message


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    found = judge(tmp_path / "none.yml", tmp_path)
    assert not found.ok
    assert "cannot read" in found.findings[0].diagnostic.message


def test_an_action_is_judged_as_one(folder: Path) -> None:
    assert judged(folder, "name: a\ndescription: b\nruns: {using: composite, steps: []}\n", "action.yml").ok


def test_text_shows_line_caret_hint_and_sum(folder: Path) -> None:
    text = as_text([judged(folder, BAD)], colour=False)
    assert ".github/workflows/ci.yml:4:5: error: Unexpected value 'run-on'\n" in text
    assert "  4 |     run-on: x\n    |     ^^^^^^\n  hint: did you mean `runs-on`?\n" in text
    assert text.endswith("2 errors: 1 of 1 file would be refused\n")
    assert "\x1b" not in text
    assert "\x1b[31merror" in as_text([judged(folder, BAD)], colour=True)


def test_json_has_every_finding(folder: Path) -> None:
    files = json.loads(as_json([judged(folder, BAD), judged(folder, GOOD)]))
    assert [file["ok"] for file in files] == [False, True]
    first = files[0]["findings"][0]
    assert (first["line"], first["column"], first["hint"]) == (4, 5, "did you mean `runs-on`?")


def test_sarif_has_a_result_for_each_finding(folder: Path) -> None:
    log = json.loads(as_sarif([judged(folder, BAD), judged(folder, UNSUPPORTED)]))
    results = log["runs"][0]["results"]
    assert log["version"] == "2.1.0"
    assert [result["level"] for result in results] == ["error", "error", "warning"]
    known = {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in results} <= known
    place = results[0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == ".github/workflows/ci.yml"
    assert place["region"] == {"startLine": 4, "startColumn": 5}
