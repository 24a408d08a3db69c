import pytest

from cloche.errors import WorkflowError
from cloche.workflow.action import read_action

HEAD = "name: a\ndescription: b\n"
NODE = f"{HEAD}runs:\n  using: node24\n  main: m.js\n"
DOCKER = f"{HEAD}runs:\n  using: docker\n  image: i\n"
COMPOSITE = f"{HEAD}runs:\n  using: composite\n  steps:\n    - run: x\n      shell: bash\n"


def wrong(text: str) -> list[str]:
    try:
        read_action(text, "action.yml")
    except WorkflowError as error:
        return [f"{one.position.line}:{one.position.column} {one.message}" for one in error.diagnostics]
    return []


@pytest.mark.parametrize(("text", "using"), [(NODE, "node24"), (DOCKER, "docker"), (COMPOSITE, "composite")])
def test_the_three_kinds(text: str, using: str) -> None:
    action = read_action(text + "inputs: {one: {}, two: {default: x}}\n", "action.yml")
    assert (action.using, action.inputs) == (using, ("one", "two"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NODE.replace("name: a\n", ""), "1:1 Required property is missing: name"),
        (NODE.replace("24", "18"), "4:10 Unexpected value 'node18'"),
        (
            NODE + "  pre-if: github.ref ==\n",
            "6:11 Unexpected end of expression: '=='. Located at position 12",
        ),
        (NODE + "  post-if: ${{ secrets.x }}\n", "6:12 Unrecognized named-value: 'secrets'."),
        (COMPOSITE + "      if: inputs.a && nofn()\n", "8:11 Unrecognized function: 'nofn'."),
        (COMPOSITE.replace("      shell: bash\n", ""), "6:7 Required property is missing: shell"),
        (COMPOSITE + "      timeout-minutes: 1\n", "8:7 Unexpected value 'timeout-minutes'"),
        (COMPOSITE + "      env: {A: '${{ needs.x }}'}\n", "8:16 Unrecognized named-value: 'needs'."),
        (DOCKER + "  args: ['${{ env.x }}']\n", "6:10 Unrecognized named-value: 'env'."),
        (DOCKER + "  env: [a]\n", "6:8 A sequence was not expected"),
        (DOCKER + "  entrypoint: ''\n", "6:15 Unexpected value ''"),
        (NODE + "branding: {icon: unicorn, color: red}\n", "6:18 Unexpected value 'unicorn'"),
        (
            NODE + "outputs: {o: {value: x, deprecationMessage: y}}\n",
            "6:25 Unexpected value 'deprecationMessage'",
        ),
        (NODE + "inputs: {i: {required: 'true'}}\n", "6:24 Unexpected value 'true'"),
        ("[]", "1:1 A sequence was not expected"),
    ],
)
def test_what_is_wrong(text: str, message: str) -> None:
    assert wrong(text)[0].startswith(message)


def test_conditions_imply_nothing_around_a_run_and_success_in_a_step() -> None:
    assert wrong(NODE + "  pre-if: runner.os == 'Linux'\n  post-if: always()\n") == []
    assert wrong(COMPOSITE + "      if: failure() || inputs.x\n") == []
