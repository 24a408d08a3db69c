"""From a file's text to a checked workflow, and what is said of a file that is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.errors import WorkflowError
from cloche.workflow.model import Workflow
from cloche.workflow.nodes import Mapping, Scalar
from cloche.workflow.parse import parse_workflow

WHOLE = """
name: CI 1.10
run-name: Run by ${{ github.actor }}
on:
  push:
    branches: [main, 'releases/**']
    tags-ignore: v1
  pull_request:
  workflow_dispatch:
    inputs:
      level: {type: choice, options: [low, high], default: low}
      bare:
  schedule:
    - cron: '0 0 * * 1'
permissions: {contents: read, id-token: write}
env:
  VERSION: 3.10
defaults:
  run: {shell: bash, working-directory: src}
jobs:
  build:
    name: Build on ${{ matrix.os }}
    runs-on: ${{ matrix.os }}
    strategy:
      fail-fast: false
      max-parallel: 2
      matrix:
        os: [ubuntu-latest, ubuntu-24.04]
        include:
          - os: ubuntu-latest
            extra: {deep: [1, 2]}
    timeout-minutes: 30
    continue-on-error: ${{ matrix.extra != null }}
    env: ${{ fromJSON('{}') }}
    outputs:
      version: ${{ steps.version.outputs.version }}
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0, path: code, submodules: false}
      - id: version
        name: Tell
        if: always() && matrix.os == 'ubuntu-latest'
        run: echo version=1 >> "$GITHUB_OUTPUT"
        shell: python {0}
        working-directory: code
        env: {A: 1}
        continue-on-error: true
        timeout-minutes: 2.5
  test:
    needs: [BUILD]
    if: ${{ needs.build.outputs.version }}
    runs-on: {labels: [self-hosted, linux]}
    steps: []
"""


def parse(text: str | bytes, *, unsupported: bool = False) -> Workflow:
    return parse_workflow(text, "w.yml", allow_unsupported=unsupported)


def problems(text: str, *, unsupported: bool = True) -> list[str]:
    with pytest.raises(WorkflowError) as caught:
        parse(text, unsupported=unsupported)
    return [f"{d.position.line}:{d.position.column} {d.message}" for d in caught.value.diagnostics]


def job(body: str) -> str:
    """A workflow of one job whose body starts at line 4, column 5."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    return f"on: push\njobs:\n  a:\n{lines}"


def steps(body: str) -> str:
    """A workflow of one job whose steps start at line 6, column 7."""
    lines = "".join(f"  {line}\n" for line in body.strip("\n").splitlines())
    return job(f"runs-on: x\nsteps:\n{lines}")


def text_of(scalar: Scalar | None) -> str | None:
    return scalar.text if scalar else None


def test_the_whole_of_what_is_supported() -> None:
    workflow = parse(WHOLE)
    assert (workflow.name, workflow.path, workflow.display_name) == ("CI 1.10", "w.yml", "CI 1.10")
    assert text_of(workflow.run_name) == "Run by ${{ github.actor }}"
    assert list(workflow.triggers) == ["push", "pull_request", "workflow_dispatch", "schedule"]
    push = workflow.triggers["push"]
    assert (push.branches, push.tags_ignore) == (("main", "releases/**"), ("v1",))
    inputs = workflow.triggers["workflow_dispatch"].inputs
    assert inputs is not None
    assert [key.text for key, _ in inputs] == ["level", "bare"]
    assert text_of(workflow.defaults.shell) == "bash"
    assert list(workflow.jobs) == ["build", "test"]


def test_a_job_in_the_model() -> None:
    build = parse(WHOLE).jobs["build"]
    assert (build.position.line, build.position.column) == (21, 3)
    assert build.condition.expression == "success()"
    assert build.strategy is not None
    assert isinstance(build.strategy.matrix, Mapping)
    assert [key.text for key, _ in build.strategy.matrix] == ["os", "include"]
    assert text_of(build.strategy.max_parallel) == "2"
    assert isinstance(build.env, Scalar)
    assert build.outputs is not None
    assert build.uses is None


def test_a_need_is_spelled_as_the_job_is() -> None:
    test = parse(WHOLE).jobs["test"]
    assert test.needs == ("build",)
    assert test.condition.expression == "success() && (needs.build.outputs.version)"
    assert isinstance(test.runs_on, Mapping)


def test_steps_in_the_model() -> None:
    checkout, tell = parse(WHOLE).jobs["build"].steps
    assert (checkout.index, checkout.id, checkout.condition, text_of(checkout.uses)) == (
        1,
        "",
        None,
        "actions/checkout@v4",
    )
    assert checkout.with_ is not None
    assert (tell.index, tell.id, text_of(tell.name), text_of(tell.shell)) == (
        2,
        "version",
        "Tell",
        "python {0}",
    )
    assert tell.condition is not None
    assert tell.condition.expression == "always() && matrix.os == 'ubuntu-latest'"
    assert (text_of(tell.working_directory), text_of(tell.timeout_minutes)) == ("code", "2.5")


def test_a_name_stays_as_typed_and_may_be_missing() -> None:
    assert parse("name: 1.10\non: push\njobs: {a: {runs-on: x}}\n").name == "1.10"
    assert parse("on: push\njobs: {a: {runs-on: x}}\n").display_name == "w.yml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a string", ["1:1 Unexpected value 'a string'"]),
        ("[a]", ["1:1 A sequence was not expected"]),
        ("on: push", ["1:1 Required property is missing: jobs"]),
        ("on: psuh\njobs: {a: {runs-on: x}}", ["1:5 Unexpected value 'psuh'"]),
        ("on: {push: {branch: main}}\njobs: {a: {runs-on: x}}", ["1:13 Unexpected value 'branch'"]),
        ("on: push\njobs: {}", ["2:7 The workflow must contain at least one job with no dependencies."]),
        (
            job("run-on: x"),
            ["4:5 Unexpected value 'run-on'", "4:5 There's not enough info to determine what you meant."],
        ),
        (job("runs-on: x\nsteps: a"), ["5:12 Unexpected value 'a'"]),
        (job("runs-on: x\nruns-on: y"), ["5:5 'runs-on' is already defined"]),
        (job("runs-on: x\nRuns-On: y"), ["5:5 'Runs-On' is already defined"]),
        (job("runs-on: x\nenv: {A: 1, a: 2}"), ["5:17 'a' is already defined"]),
        (job("runs-on: x\ntimeout-minutes: soon"), ["5:22 Unexpected value 'soon'"]),
        (job("runs-on: x\ntimeout-minutes: '5'"), ["5:22 Unexpected value '5'"]),
        (job("runs-on: x\ncontinue-on-error: yes"), ["5:24 Unexpected value 'yes'"]),
        (job("runs-on: []\npermissions: {contents: admin}"), ["5:29 Unexpected value 'admin'"]),
        (
            job("runs-on: x\nstrategy: {matrix: {os: []}}"),
            ["5:29 Matrix vector 'os' does not contain any values"],
        ),
        (job("runs-on: x\nstrategy: {matrix: {}}"), ["5:24 Matrix must define at least one vector"]),
        (
            job("runs-on: x\nstrategy: {matrix: {os: [a], exclude: [{so: a}]}}"),
            ["5:45 Matrix exclude key 'so' does not match any key within the matrix"],
        ),
        (
            job("runs-on: x\nstrategy: {matrix: {os: ['${{ github.sha }}'], v: []}}"),
            ["5:55 Matrix vector 'v' does not contain any values"],
        ),
        (
            job("needs: b\nruns-on: x"),
            ["3:3 The workflow must contain at least one job with no dependencies."],
        ),
        (
            job("runs-on: x\nstrategy: {matrix: {os: [a], exclude: [b, {so: a}]}}"),
            ["5:44 Unexpected value 'b'"],
        ),
        (steps("- run: a\n  uses: b/c@d"), ["7:9 Unexpected value 'uses'"]),
        (steps("- name: a"), ["6:9 There's not enough info to determine what you meant."]),
        (steps("- run: a\n  if: foo()"), ["7:13 Unrecognized function: 'foo'. Located at position 1"]),
        (steps("- run: ${{ a.b }}"), ["6:14 Unrecognized named-value: 'a'. Located at position 1"]),
        (steps("- run: ${{ }}"), ["6:14 An expression was expected"]),
        (steps("- run: ${{ 'a }}"), ["6:14 The expression is not closed."]),
        (steps("- run: a\n  shell: '${{ github.sha }}'"), ["7:16 Unrecognized named-value: 'github'."]),
        (
            steps("- run: a\n  shell: \"${{ format('{0}', 1) }}\""),
            ["7:16 A template expression is not allowed"],
        ),
        (steps("- run: a\n  <<: {if: b}"), ["7:9 Unexpected value '<<'"]),
        ("on: {schedule: [{cron: '@daily'}]}\njobs: {a: {runs-on: x}}", ["1:24 Invalid cron expression."]),
    ],
)
def test_what_is_wrong(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected)
    assert [one for one, start in zip(found, expected, strict=True) if not one.startswith(start)] == []


def test_everything_is_found_in_one_pass_and_by_position() -> None:
    text = steps(
        """
- run: a
  iff: b
- id: 1st
  run: ${{ nothing.here }}
- uses: somewhere
- run: a
  if: success( && b
"""
    ).replace("runs-on: x", "runs-on: x\n    needs: missing\n    services: {}")
    found = problems(text + "  b: {runs-on: x}\n", unsupported=False)
    assert [one.split(" ")[0] for one in found] == [
        "5:12",
        "6:5",
        "9:9",
        "10:13",
        "11:14",
        "12:15",
        "12:15",
        "14:13",
    ]


def test_hints_name_the_word_that_was_meant() -> None:
    with pytest.raises(WorkflowError) as caught:
        parse(steps("- run: a\n  shel: bash").replace("runs-on", "runson"))
    hints = {d.message: d.hint for d in caught.value.diagnostics}
    assert hints["Unexpected value 'runson'"] == "did you mean `runs-on`?"
    assert hints["Unexpected value 'shel'"] == "did you mean `shell`?"


def test_needs_in_a_circle_and_unknown_ones() -> None:
    text = """
on: push
jobs:
  start: {runs-on: x}
  a: {runs-on: x, needs: [start, b]}
  b: {runs-on: x, needs: [a, tset]}
  c: {runs-on: x, needs: b}
  test: {runs-on: x}
"""
    assert problems(text) == [
        "5:34 Job 'a' depends on job 'b' which creates a cycle in the dependency graph.",
        "6:27 Job 'b' depends on job 'a' which creates a cycle in the dependency graph.",
        "6:30 Job 'b' depends on unknown job 'tset'.",
        "7:26 Job 'c' depends on job 'b' which creates a cycle in the dependency graph.",
    ]


def test_ids() -> None:
    found = problems(steps("- {id: a, run: b}\n- {id: A, run: b}\n- {id: __x, run: b}\n- {id: ä, run: b}"))
    assert [one.split(". ")[0] for one in found] == [
        "7:14 The identifier 'A' may not be used more than once within the same scope.",
        "8:14 The identifier '__x' is invalid",
        "9:14 The identifier 'ä' is invalid",
    ]


@pytest.mark.parametrize(
    ("key", "context", "allowed"),
    [
        ("runs-on", "matrix.a", True),
        ("runs-on", "secrets.a", False),
        ("runs-on", "env.a", False),
        ("runs-on: x\nname", "needs.a", True),
        ("runs-on: x\nenv", "secrets", True),
        ("runs-on: x\nenv", "steps.a", False),
        ("runs-on: x\noutputs: {}\ntimeout-minutes", "runner.os", False),
    ],
)
def test_contexts_are_those_github_has_at_each_key(key: str, context: str, *, allowed: bool) -> None:
    text = job(f"{key}: ${{{{ {context} }}}}")
    if allowed:
        parse(text, unsupported=True)
    else:
        assert "Unrecognized named-value" in problems(text)[0]


def test_status_functions_take_what_each_place_gives_them() -> None:
    parse(job("runs-on: x\nif: success('a')"))
    assert "Too many parameters" in problems(steps("- {run: a, if: success('a')}"))[0]
    assert "Unrecognized function" in problems(job("runs-on: x\nif: hashFiles('a') == ''"))[0]
    parse(steps("- {run: a, if: hashFiles('a') == ''}"))


def test_a_constant_expression_is_plain_text() -> None:
    workflow = parse(job("runs-on: x\nneeds: ${{ 'b' }}") + "  b: {runs-on: x}\n")
    assert workflow.jobs["a"].needs == ("b",)


def test_messages_are_short_and_harmless_to_print() -> None:
    found = problems(f'on: "{chr(92)}e[31m{"x" * 5000}"\njobs: {{a: {{runs-on: x}}}}')
    assert "\x1b" not in found[0]
    assert r"\u001b[31m" in found[0]
    assert len(found[0]) < 600


def test_a_thousand_mistakes_give_a_hundred_diagnostics() -> None:
    assert (
        len(problems("on: push\njobs: {a: {runs-on: x}}\n" + "".join(f"k{n}: v\n" for n in range(1000))))
        == 100
    )


@pytest.mark.timeout(30)
def test_big_files_are_read_in_good_time() -> None:
    chain = "".join(f"  j{n}: {{runs-on: x, needs: j{n - 1}}}\n" for n in range(1, 5000))
    assert len(parse(f"on: push\njobs:\n  j0: {{runs-on: x}}\n{chain}").jobs) == 5000
    long = " && ".join(["github.sha"] * 1500)
    aliases = "".join(f"      - {{run: a, if: *long, name: '{n}'}}\n" for n in range(200))
    text = steps(f"- {{run: a, if: &long '{long}'}}") + aliases
    assert len(parse(text).jobs["a"].steps) == 201
    unknown = "".join(f"      runz{n}: {n}\n" for n in range(20_000))
    assert len(problems(f"on: push\njobs:\n  a:\n{unknown}")) == 100


_WORDS = st.sampled_from(
    """
    on jobs name env steps run uses with if id needs runs-on strategy matrix include exclude shell defaults
    push pull_request branches types workflow_dispatch inputs schedule cron container services permissions
    outputs group labels a b x 1 ${{ ${{insert}} ${{github.sha}} success() actions/checkout@v4 '' {0}
    """.split()  # noqa: SIM905 - a list of words reads best as words
)
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _WORDS, st.text(max_size=5)
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=20,
)
_JOBS = st.dictionaries(_WORDS, st.dictionaries(_WORDS, _TREES, max_size=5), max_size=3)


def check_any(text: str) -> None:
    for unsupported in (False, True):
        try:
            assert isinstance(parse(text, unsupported=unsupported), Workflow)
        except WorkflowError as error:
            places = [(d.position.line, d.position.column) for d in error.diagnostics]
            assert places == sorted(places)


@settings(max_examples=settings().max_examples * 3 // 2)
@given(st.one_of(_TREES, st.fixed_dictionaries({"on": _TREES, "jobs": _JOBS})))
def test_any_tree_is_a_workflow_or_a_workflow_error(tree: object) -> None:
    check_any(json.dumps(tree))


@settings(max_examples=settings().max_examples * 3 // 2)
@given(st.integers(0, len(WHOLE)), st.integers(0, 20), st.text(alphabet="{}[]:,-'\"&*!$\n ab${}", max_size=6))
def test_a_good_file_with_a_slip_of_the_hand(at: int, gone: int, new: str) -> None:
    check_any(WHOLE[:at] + new + WHOLE[at + gone :])
