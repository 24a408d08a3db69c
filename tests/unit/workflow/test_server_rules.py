import pytest

from cloche.workflow.findings import Findings
from cloche.workflow.server_rules import check_server_rules
from cloche.workflow.yaml import read


def wrong(text: str) -> list[str]:
    findings = Findings()
    check_server_rules(read(text, "w.yml"), findings)
    return [f"{one.position.line}:{one.position.column} {one.message}" for one in findings.found()]


def call(uses: str) -> str:
    return f"jobs:\n  a:\n    uses: {uses}\n"


@pytest.mark.parametrize(
    "uses",
    [
        "./.github/workflows/x.yml",
        "$/.github/workflows/x.yml",
        "o/r/.github/workflows/x.yml@v1",
        "o/r/.github/workflows/x.yml@feature/a@b",
    ],
)
def test_references_that_can_be(uses: str) -> None:
    assert wrong(call(uses)) == []


@pytest.mark.parametrize(
    ("uses", "problem"),
    [
        ("o/r/.github/workflows/x.yml", "no version specified"),
        ("o/r/.github/workflows/x.yml@", "no version specified"),
        ("./.github/workflows/x.yml@v1", "cannot specify version when calling local workflows"),
        ("./x.yml", "references to workflows must be prefixed"),
        ("x@v1", "references to workflows must be prefixed"),
        ("o/r/a/b/x.yml@v1", "references to workflows must be rooted in '.github/workflows'"),
        (
            "o/r/.github/workflows/deep/x.yml@v1",
            "references to workflows must be rooted in '.github/workflows'",
        ),
    ],
)
def test_references_that_cannot(uses: str, problem: str) -> None:
    assert wrong(call(uses))[0].startswith(f"3:11 invalid value workflow reference: {problem}")


def test_filters_and_shells() -> None:
    assert wrong("on: {push: {branches: [a], branches-ignore: [b]}}\n")[0].startswith(
        "1:28 You may only define"
    )
    assert wrong("on: {push: {tags: ['[']}}\n")[0].startswith("1:20 Invalid filter pattern")
    assert wrong("jobs: {a: {steps: [{run: x, shell: zsh}, {run: x, shell: 'zsh {0}'}]}}\n") == [
        (
            "1:36 Invalid shell option. Shell must be a valid built-in "
            "(bash, sh, cmd, powershell, pwsh, python) or a format string containing '{0}'"
        )
    ]
