"""Calls of workflows: what they are given, what they may ask for, how deep they go."""

from __future__ import annotations

import pytest

from cloche.errors import WorkflowError
from cloche.workflow.parse import Rules
from cloche.workflow.reusable import CallError, CallRules, NotHere, Unit, read_unit

JOBS = "jobs:\n  inner:\n    runs-on: x\n"
CALLED = f"on: workflow_call\n{JOBS}"


def caller(uses: str = "o/r/w.yml@v1", more: str = "", above: str = "") -> str:
    return f"{above}on: push\njobs:\n  call:\n    uses: {uses}\n{more}"


def read(text: str, files: dict[str, str], rules: CallRules | None = None) -> Unit:
    return read_unit(text, "c.yml", files.get, Rules(staged=True), rules)


def wrong(text: str, files: dict[str, str], rules: CallRules | None = None) -> list[str]:
    with pytest.raises(WorkflowError) as caught:
        read(text, files, rules)
    return [
        f"{d.position.file}:{d.position.line}:{d.position.column} {d.message}"
        for d in caught.value.diagnostics
    ]


def definitions(text: str) -> str:
    return f"on:\n  workflow_call:\n{text}{JOBS}"


def test_a_call_is_read_with_what_it_names() -> None:
    unit = read(caller(), {"o/r/w.yml@v1": CALLED})
    assert list(unit.calls["call"].workflow.jobs) == ["inner"]
    assert unit.calls["call"].path == "o/r/w.yml@v1"


@pytest.mark.parametrize("prefix", ["./", "$/"])
def test_a_path_is_in_the_repository_of_who_names_it(prefix: str) -> None:
    files = {
        "o/r/w.yml@v1": caller(f"{prefix}deep/x.yml").replace("push", "workflow_call"),
        "o/r/deep/x.yml@v1": CALLED,
        "./near.yml": CALLED,
    }
    read(caller(), files)
    read(caller(f"{prefix}near.yml"), files)


def test_a_file_that_is_nowhere_is_an_error() -> None:
    assert wrong(caller(), {}) == ["c.yml:4:11 Unable to find reusable workflow"]


def test_a_file_that_cannot_be_seen_from_here_is_left_alone() -> None:
    def source(_: str) -> str | None:
        raise NotHere

    assert read_unit(caller(), "c.yml", source).calls == {}


def test_a_workflow_that_is_not_for_calling() -> None:
    found = wrong(caller(), {"o/r/w.yml@v1": f"on: push\n{JOBS}"})
    assert found == [
        (
            "c.yml:4:11 Error from called workflow o/r/w.yml@v1 (Line: 1, Col: 5): "
            "workflow_call key is not defined in the referenced workflow."
        )
    ]


def test_what_is_wrong_in_a_called_file_is_told_with_both_places() -> None:
    found = wrong(caller(), {"o/r/w.yml@v1": "on: workflow_call\njobs: {a: {}}\n"})
    assert found[0].startswith(
        "c.yml:4:11 Error from called workflow o/r/w.yml@v1 (Line: 2, Col: 11): There's"
    )


INPUTS = definitions(
    "    inputs:\n"
    "      Text: {type: string, required: true}\n"
    "      count: {type: number}\n"
    "      flag: {type: boolean, default: true}\n"
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("{text: a, COUNT: 1, flag: false}", []),
        ("{text: '${{ github.ref }}', count: '${{ 1 }}'}", []),
        ("{text: 1}", []),
        ("{text: }", []),
        ("{text: a, count: b}", ["c.yml:5:28 Unexpected value 'b'"]),
        ("{text: a, flag: 1}", ["c.yml:5:27 Unexpected value '1'"]),
        ("{}", ["c.yml:4:11 Input Text is required, but not provided while calling."]),
        (
            "{text: a, other: 1}",
            ["c.yml:5:28 Invalid input, other is not defined in the referenced workflow."],
        ),
    ],
)
def test_inputs(given: str, found: list[str]) -> None:
    text, files = caller(more=f"    with: {given}\n"), {"o/r/w.yml@v1": INPUTS}
    assert (wrong(text, files) if found else read(text, files) and []) == found


def test_a_default_of_the_wrong_type_is_the_called_files_mistake() -> None:
    called = definitions("    inputs:\n      a: {type: number, default: x}\n")
    assert wrong(caller(), {"o/r/w.yml@v1": called}) == [
        "c.yml:4:11 Error from called workflow o/r/w.yml@v1 (Line: 4, Col: 34): Unexpected value 'x'"
    ]


SECRETS = definitions("    secrets:\n      Key: {required: true}\n      more:\n")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("{key: '${{ secrets.A }}', more: x}", []),
        ("inherit", []),
        ("{more: x}", ["c.yml:4:11 Secret Key is required, but not provided while calling."]),
        (
            "{key: a, none: b}",
            ["c.yml:5:29 Invalid secret, none is not defined in the referenced workflow."],
        ),
    ],
)
def test_secrets(given: str, found: list[str]) -> None:
    text, files = caller(more=f"    secrets: {given}\n"), {"o/r/w.yml@v1": SECRETS}
    assert (wrong(text, files) if found else read(text, files) and []) == found


def test_permissions_come_from_the_nearest_that_says() -> None:
    files = {"o/r/w.yml@v1": f"permissions:\n  contents: read\n{CALLED}"}
    assert read(caller(above="permissions: write-all\n"), files).calls["call"].permissions == {
        "contents": "read"
    }
    files = {"o/r/w.yml@v1": CALLED}
    assert read(caller(above="permissions:\n  actions: read\n"), files).calls["call"].permissions == {
        "actions": "read"
    }
    assert read(caller(), files).calls["call"].permissions is None


@pytest.mark.parametrize(
    ("policy", "asked", "allowed"),
    [
        ("LimitedRead", "contents: read", True),
        ("LimitedRead", "issues: read", False),
        ("Write", "issues: write", True),
        ("Write", "attestations: write", True),
        ("Write", "id-token: write", False),
    ],
)
def test_where_nobody_writes_permissions_the_policy_decides(policy: str, asked: str, allowed: bool) -> None:  # noqa: FBT001 - a row's column
    files = {"o/r/w.yml@v1": f"permissions:\n  {asked}\n{CALLED}"}
    rules = CallRules(policy=policy)
    if allowed:
        read(caller(), files, rules)
    else:
        assert "but is only allowed" in wrong(caller(), files, rules)[0]


def test_more_permissions_than_given_are_refused_at_the_calling_job() -> None:
    files = {"o/r/w.yml@v1": CALLED.replace("    runs-on", "    permissions: {issues: write}\n    runs-on")}
    assert wrong(caller(above="permissions: {issues: read}\n"), files) == [
        (
            "c.yml:4:3 Error calling workflow 'o/r/w.yml@v1'. The nested job 'inner' is requesting "
            "'issues: write', but is only allowed 'issues: read'."
        )
    ]


def chain(levels: int) -> dict[str, str]:
    files = {
        f"o/r/{n}.yml@v1": caller(f"o/r/{n + 1}.yml@v1").replace("push", "workflow_call")
        for n in range(levels)
    }
    return {**files, f"o/r/{levels}.yml@v1": CALLED}


def test_ten_levels_of_calls_are_the_limit() -> None:
    read(caller("o/r/1.yml@v1"), chain(10))
    with pytest.raises(CallError) as caught:
        read(caller("o/r/0.yml@v1"), chain(10))
    assert caught.value.unplaced
    assert caught.value.diagnostics[0].message == "Nested reusable workflow depth exceeded 10."


def test_a_workflow_that_calls_itself_is_told_so() -> None:
    with pytest.raises(CallError) as caught:
        read(caller("./c.yml"), {"./c.yml": caller("./c.yml").replace("push", "workflow_call")})
    assert caught.value.hint == "./c.yml calls itself, by way of others"


def test_calls_that_multiply_end_soon() -> None:
    def fan(number: int) -> str:
        jobs = "".join(f"  j{n}:\n    uses: o/r/{number}.yml@v1\n" for n in range(50))
        return f"on: workflow_call\njobs:\n{jobs}"

    files = {**{f"o/r/{n}.yml@v1": fan(n + 1) for n in range(8)}, "o/r/8.yml@v1": CALLED}
    found = wrong(caller("o/r/0.yml@v1"), files)
    assert found[0].endswith("The workflow calls workflows more than 1000 times")


def test_files_and_jobs_are_limited() -> None:
    files = {f"o/r/{n}.yml@v1": CALLED for n in range(60)}
    many = "".join(f"  j{n}:\n    uses: o/r/{n}.yml@v1\n" for n in range(60))
    assert wrong(f"on: push\njobs:\n{many}", files) == [
        "c.yml:104:11 The maximum file count of 51 has been exceeded"
    ]
    assert wrong(caller("o/r/1.yml@v1"), files, CallRules(jobs=1)) == [
        (
            "c.yml:4:11 Error from called workflow o/r/1.yml@v1 (Line: 3, Col: 3): "
            "Workflows may not contain more than 1 jobs across all referenced files"
        )
    ]
