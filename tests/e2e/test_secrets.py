"""A secret is in the step that asks for it, and in nothing that anybody is shown."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.gate import Gate
from tests.e2e.place import command_line, processes
from tests.e2e.terminal import Terminal

if TYPE_CHECKING:
    from tests.e2e.place import Ended, Place

SECRET = "correct-horse-battery-staple"
MASK = "***"
TELLING_ALL = f"""
name: Deploy {SECRET}
on: push
env: {{TOKEN: "${{{{ secrets.TOKEN }}}}"}}
jobs:
  job:
    name: To {SECRET}
    runs-on: ubuntu-latest
    outputs: {{token: "${{{{ steps.it.outputs.token }}}}", fine: "${{{{ steps.it.outputs.fine }}}}"}}
    steps:
      - name: With ${{{{ secrets.TOKEN }}}}
        id: it
        run: |
          test ${{#TOKEN}} = {len(SECRET)}
          echo "plain $TOKEN"
          printf 'split correct-horse-'; sleep 0.2; printf 'battery-staple\\n'
          echo "longer pre${{TOKEN}}post"
          echo "base64 $(printf %s "$TOKEN" | base64)"
          echo "as a header $(printf 'user:%s' "$TOKEN" | base64)"
          echo "::group::group $TOKEN"
          echo "::endgroup::"
          echo "::error file=$TOKEN.py,title=$TOKEN::annotated $TOKEN"
          echo "::warning::$(printf %s "$TOKEN" | base64)"
          echo "# summary $TOKEN" >> $GITHUB_STEP_SUMMARY
          echo "token=$TOKEN" >> $GITHUB_OUTPUT
          echo "fine=fine" >> $GITHUB_OUTPUT
          set -x; true "$TOKEN"
      - run: cd "/$TOKEN"
        continue-on-error: true
      - run: echo never
        working-directory: ${{{{ secrets.TOKEN }}}}
        continue-on-error: true
      - run: ${{{{ secrets.TOKEN }}}}
"""


def forms(secret: str) -> list[str]:
    """The secret, and the parts of its base64 that no neighbour changes."""
    encoded = [base64.b64encode(b"x" * shift + secret.encode()).decode()[4:-4] for shift in range(3)]
    return [secret, *encoded]


def assert_hidden(ended: Ended, secret: str = SECRET) -> None:
    for form in forms(secret):
        assert form not in ended.stdout
        assert form not in ended.stderr


@pytest.mark.sandbox
@pytest.mark.parametrize("output", [["jsonl"], ["plain"], ["console"], ["plain", "-q"], ["plain", "-v"]])
def test_a_secret_is_nowhere(sandbox: Place, output: list[str]) -> None:
    sandbox.workflow(TELLING_ALL)
    ended = sandbox.run("run", "-s", "TOKEN", "--output", *output, env={"TOKEN": SECRET})

    assert ended.code == 1
    assert_hidden(ended)
    assert MASK in ended.stdout


@pytest.mark.sandbox
def test_what_surrounds_a_secret_is_shown(sandbox: Place) -> None:
    sandbox.workflow(TELLING_ALL)
    ended = sandbox.run("run", "-s", "TOKEN", "--output", "jsonl", env={"TOKEN": SECRET})

    lines = ended.output(step=1).splitlines()
    assert lines[:4] == ["plain ***", "split ***", "longer pre***post", "base64 ***"]
    assert ended.one("run.started")["workflow"] == "Deploy ***"
    assert ended.one("job.finished")["name"] == "To ***"
    assert ended.one("step.summary")["markdown"] == "# summary ***\n"
    first = ended.of("step.finished")[0]
    assert (first["name"], first["outputs"]) == ("With ***", {"token": "***", "fine": "fine"})
    assert ended.one("job.finished")["outputs"] == {"fine": "fine"}
    (error,) = ended.of("step.annotation", level="error", title="***")
    assert (error["file"], error["message"]) == ("***.py", "annotated ***")
    assert "Skip output 'token' since it may contain secret." in " ".join(ended.messages)
    assert "Executing step 1/4: With ***" in ended.stderr


def test_secrets_from_files(place: Place) -> None:
    step = '- run: echo "${{ secrets.ONE }} ${{ secrets.TWO }} ${{ secrets.THREE }}"; echo "$ALL"'
    place.steps(step, job='env: {ALL: "${{ toJSON(secrets) }}"}')
    lines = place.folder / "lines"
    lines.write_text("# mine\nONE=first secret\n\nTWO='second=secret'\nTHREE=\n")
    ended = place.run("run", "--output", "jsonl", "--secret-file", str(lines))
    assert ended.output().splitlines()[0] == "*** *** "
    assert_hidden(ended, "first secret")
    assert_hidden(ended, "second=secret")

    document = place.folder / "document"
    document.write_text(json.dumps({"ONE": "line one\nline two", "TWO": "second", "THREE": ""}))
    ended = place.run("run", "--output", "jsonl", "--secret-file", str(document))
    assert ended.output().splitlines()[0] == "*** *** "
    assert_hidden(ended, "line one")
    assert_hidden(ended, "line two")


def test_a_secret_is_asked_for_on_a_terminal(place: Place) -> None:
    place.steps(
        '- run: test "${{ secrets.TOKEN }}" = correct-horse-battery-staple; echo "${{ secrets.TOKEN }}"'
    )
    with Terminal(place, "-s", "TOKEN", "--output", "plain") as terminal:
        terminal.wait_for("value of the secret TOKEN: ")
        terminal.type(f"{SECRET}\n")
        code, said = terminal.end()
    assert code == 0
    assert MASK in said
    assert SECRET not in said


def test_a_mask_that_a_step_adds_holds_from_then_on(place: Place) -> None:
    place.steps(f'- run: echo "before {SECRET}"; echo "::add-mask::{SECRET}"\n- run: echo after {SECRET}')
    ended = place.run("run", "--output", "jsonl")
    assert ended.output() == f"before {SECRET}\nafter ***\n"


@pytest.mark.sandbox
def test_a_secret_is_on_no_command_line_of_the_host(sandbox: Place) -> None:
    with Gate() as gate:
        sandbox.workflow(TELLING_ALL.replace("test $", gate.script("sandbox") + "; test $", 1))
        with sandbox.events("-s", "TOKEN", env={"TOKEN": SECRET}) as running:
            gate.wait_for(1)
            lines = [command_line(pid) for pid in processes("")]
            kept = [path.read_text() for path in (sandbox.folder / "runtime").rglob("*.json")]
            gate.open()
            ended = running.end()
    assert ended.of("step.output")
    assert lines
    assert not any(SECRET in part for line in lines for part in line)
    assert kept
    assert not any(SECRET in text for text in kept)
