"""Secrets never come out, whichever way they try.

https://docs.github.com/en/actions/concepts/security/secrets
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from cloche.execution import masking

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from cloche.vm.fake import Call
    from cloche.vm.guest import ExecSpec
    from tests.unit.execution.conftest import Lab

SECRET = "correct horse battery staple"


def everything(lab: Lab) -> str:
    return json.dumps([event.to_json() for event in lab.events])


async def test_wherever_a_secret_turns_up_it_is_masked(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await lab.run(
        """
        on: push
        jobs:
          job:
            runs-on: ubuntu-latest
            env: {TOKEN: "${{ secrets.TOKEN }}"}
            steps:
              - name: With ${{ secrets.TOKEN }}
                id: one
                run: |
                  echo "$TOKEN"
                  echo "::error title=$TOKEN,file=$TOKEN::$TOKEN"
                  echo "::group::$TOKEN"
                  echo "out=$TOKEN" >> "$GITHUB_OUTPUT"
                  echo "# $TOKEN" >> "$GITHUB_STEP_SUMMARY"
                  echo "$TOKEN" >> "$GITHUB_ENV"
              - if: always()
                run: echo ${{ secrets.TOKEN }} ${{ fromJSON(secrets.TOKEN) }}
        """,
        secrets={"TOKEN": SECRET},
    )

    assert SECRET not in everything(lab)
    assert SECRET not in caplog.text
    assert "With ***" in caplog.text
    assert everything(lab).count("***") >= 8


async def test_a_secret_in_pieces_is_masked(make_lab: Callable[..., Lab]) -> None:
    async def drip(_spec: ExecSpec, call: Call) -> int:
        for character in f"the {SECRET}!\n":
            await call.print(character)
        return 0

    lab = make_lab(handler=drip)
    async with lab.manager:
        await lab.steps("- run: x", secrets={"TOKEN": SECRET})

    assert lab.output() == "the ***!\n"


async def test_a_secret_in_a_line_without_end_is_masked(make_lab: Callable[..., Lab]) -> None:
    async def flood(_spec: ExecSpec, call: Call) -> int:
        for number in range(40):
            await call.print("." * (8190 + number) + SECRET)
        return 0

    lab = make_lab(handler=flood)
    async with lab.manager:
        await lab.steps("- run: x", secrets={"TOKEN": SECRET})

    assert SECRET not in lab.output().replace("\n", "")
    assert lab.output().count("***") >= 40


async def test_a_value_that_a_step_masks_is_masked_from_then_on_in_all_jobs(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a:
            runs-on: ubuntu-latest
            steps:
              - run: |
                  echo "before: abc123xyz"
                  echo "::add-mask::abc123xyz"
                  echo "after: abc123xyz"
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: echo abc123xyz}]}
        """
    )

    assert lab.output("a") == "before: abc123xyz\nafter: ***\n"
    assert lab.output("b") == "***\n"


async def test_what_a_step_masks_without_end_stops_its_output(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "MAX_GUEST_PATTERNS", 2000)
    await lab.steps(
        """
        - id: flood
          run: |
            for a in 1 2 3 4 5 6 7 8 9; do for b in 1 2 3 4 5 6 7 8 9; do
              echo "::add-mask::secret-$a-$b"
            done; done
            echo "secret-9-9"
            echo "x=secret-9-9" >> "$GITHUB_OUTPUT"
        - name: Again
          if: always()
          run: echo "secret-9-9"
        """
    )

    assert "secret-9-9" not in everything(lab)
    assert lab.finished()["job/1"] == "failure"
    assert "Unable to process command 'add-mask' successfully." in lab.messages()


async def test_identifiers_are_not_secrets(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          test: {runs-on: ubuntu-latest, steps: [{id: test, run: echo test}]}
        """,
        secrets={"PASSWORD": "test"},
    )

    assert lab.output("test") == "***\n"
    assert lab.finished() == {"test/1": "success", "test": "success"}


async def test_secrets_are_on_no_command_line(make_lab: Callable[..., Lab]) -> None:
    lines: list[str] = []

    async def note(spec: ExecSpec, _call: Call) -> int:
        lines.append(" ".join(spec.argv))
        return 0

    lab = make_lab(handler=note)
    async with lab.manager:
        await lab.steps("- run: echo ${{ secrets.TOKEN }}", secrets={"TOKEN": SECRET})

    assert lines
    assert not any(SECRET in line for line in lines)
