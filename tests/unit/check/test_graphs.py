from cloche.check.graphs import as_mermaid, as_text
from cloche.workflow.parse import parse_workflow

TEXT = """\
name: Release "all"
on: push
jobs:
  deploy: {needs: [test, lint], runs-on: x}
  test:
    runs-on: x
    strategy: {matrix: {v: [1, 2, 3]}}
  lint: {runs-on: x, strategy: {matrix: "${{ fromJSON('{}') }}"}}
  tell: {needs: deploy, uses: "o/r/.github/workflows/x.yml@v1"}
"""
WORKFLOW = parse_workflow(TEXT, "ci.yml", allow_unsupported=True)


def test_text_has_a_paragraph_for_each_stage() -> None:
    assert as_text(WORKFLOW) == (
        'Release "all"\n'
        "  test    3 legs\n"
        "  lint    a matrix\n"
        "  │\n"
        "  deploy  after test, lint\n"
        "  │\n"
        "  tell    after deploy · calls o/r/.github/workflows/x.yml@v1\n"
    )


def test_mermaid_has_an_arrow_for_each_need() -> None:
    lines = as_mermaid(WORKFLOW).splitlines()
    assert lines[1] == "flowchart LR"
    assert '  j1["test<br>3 legs"]' in lines
    assert lines[-3:] == ["  j1 --> j0", "  j2 --> j0", "  j0 --> j3"]
