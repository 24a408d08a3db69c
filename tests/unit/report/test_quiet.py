from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cloche.report.quiet import Quiet

if TYPE_CHECKING:
    from cloche.events import Event
    from tests.unit.report.conftest import Story


FAILING = """\
1 error
  tests/test_sum.py:12: error: assert 1 == 2
Build / Test: exit code 1
  │ E   assert 1 == 2
✗ CI failed after 3.0 s
"""


def shown(*events: Event) -> str:
    out = io.StringIO()
    with Quiet(out, io.StringIO()) as reporter:
        for event in events:
            reporter(event)
    return out.getvalue()


def test_success_is_one_line(story: Story) -> None:
    events = (
        story.started(),
        story.session(),
        story.job(),
        story.step(),
        story.output("much\n"),
        story.step_done(),
    )
    assert shown(*events, story.job_done(), story.finished()) == "✓ CI succeeded after 3.0 s\n"


def test_failure_is_what_went_wrong_and_one_line(story: Story) -> None:
    assert shown(*story.failing()) == FAILING


def test_only_grave_notices_are_told(story: Story) -> None:
    text = shown(
        story.started(),
        story.notice("emulation", "warning"),
        story.notice("VM lost", "error"),
        story.finished(),
    )
    assert text == "error: VM lost\n✓ CI succeeded after 3.0 s\n"


def test_a_run_cut_short_is_told(story: Story) -> None:
    assert shown(story.started()) == "■ CI did not finish\n"
