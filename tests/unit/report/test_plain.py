from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cloche.events import StepOutput
from cloche.report.plain import Plain

if TYPE_CHECKING:
    from cloche.events import Event
    from tests.unit.report.conftest import Story


FAILING = """\
CI · push · .github/workflows/ci.yml
VM vm-1 · qemu, restored in 87 ms · guest kernel 6.1.0-56 · boot id 0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff
● Build
  ▶ 1/3 Compile
    compiling
  ✓ 1/3 Compile · 1.0 s
  ▶ 2/3 Test
    E   assert 1 == 2
    tests/test_sum.py:12: error: assert 1 == 2
  ✗ 2/3 Test · exit code 1 · 1.5 s
  ⊘ 3/3 Upload · skipped
✗ Build · 2.6 s

✗ Build         2.6 s
  ✓ Compile     1.0 s
  ✗ Test        1.5 s  exit code 1
  ⊘ Upload             skipped

1 error
  tests/test_sum.py:12: error: assert 1 == 2

Build / Test: exit code 1
  │ E   assert 1 == 2

2 steps in VM vm-1, same boot id throughout, released
✗ CI failed after 3.0 s
  run this job again: cloche run .github/workflows/ci.yml -j build
"""


def shown(*events: Event, multiple: bool = False, debug: bool = False) -> str:
    out = io.StringIO()
    with Plain(out, io.StringIO(), multiple=multiple, debug=debug) as reporter:
        for event in events:
            reporter(event)
    return out.getvalue()


def test_a_failing_run_reads_like_this(story: Story) -> None:
    assert shown(*story.failing()) == FAILING


def test_jobs_side_by_side_say_whose_line_it_is_until_they_end(story: Story) -> None:
    lines = shown(
        story.started(),
        story.job("a", "Lint"),
        story.step(1, "Check", "a"),
        story.job("b", "Test (3.11)"),
        story.step(1, "Run", "b"),
        story.output("one\ntwo\n", 1, "b"),
        story.output("fine\n", 1, "a"),
        story.step_done(1, "Check", "a"),
        story.job_done("a", "Lint"),
        story.output("three\n", 1, "b"),
    ).splitlines()
    assert lines[1:11] == [
        "● Lint",
        "  ▶ 1/1 Check",
        "Test (3.11) │ ● Test (3.11)",
        "Test (3.11) │   ▶ 1/1 Run",
        "Test (3.11) │     one",
        "Test (3.11) │     two",
        "Lint        │     fine",
        "Lint        │   ✓ 1/1 Check · 1.0 s",
        "Lint        │ ✓ Lint · 2.0 s",
        "Test (3.11) │     three",
    ]


def test_a_job_alone_has_no_prefix(story: Story) -> None:
    text = shown(story.started(), story.job("a", "A"), story.job_done("a", "A"), story.job("b", "B"))
    assert "│" not in text


def test_groups_indent_their_lines_and_are_not_folded(story: Story) -> None:
    text = shown(
        story.started(),
        story.job(),
        story.step(),
        story.group("Setup"),
        story.output("in\n"),
        story.group(None),
        story.output("out\n"),
    )
    assert "    ▾ Setup\n      in\n    out\n" in text


def test_a_forgiven_failure_is_told_and_is_no_failure(story: Story) -> None:
    forgiven = story.step_done(outcome="failure", exit_code=2)
    text = shown(story.started(), story.job(), story.step(), forgiven, story.job_done(), story.finished())
    assert "✗ 1/1 Compile · exit code 2, the job goes on (continue-on-error) · 1.0 s" in text
    assert text.endswith("✓ CI succeeded after 3.0 s\n")


def test_a_sandbox_is_not_called_a_vm(story: Story) -> None:
    session = story.session("sandbox", "booted")
    text = shown(story.started(), session, story.job(), story.step_done(), story.finished())
    assert "vm-1: sandbox on this host's own kernel, no VM · booted in 87 ms · kernel 6.1.0-56" in text
    assert "1 step in vm-1, same boot id throughout" in text


def test_notices_come_as_they_are(story: Story) -> None:
    text = shown(
        story.started(), story.notice("no KVM\nso emulation", "warning"), story.notice("inner", "debug")
    )
    assert "warning: no KVM\nso emulation\n" in text
    assert "inner" not in text


def test_what_several_runs_say_of_the_machine_is_said_once(story: Story, another_story: Story) -> None:
    text = shown(
        story.started(),
        another_story.started(),
        story.notice("no KVM", "warning"),
        another_story.notice("no KVM", "warning"),
        story.notice("VM lost", "error"),
        another_story.notice("VM lost", "error"),
        multiple=True,
    )
    assert text.count("CI │ warning: no KVM\n") == 1
    assert text.count("no KVM") == 1
    assert text.count("VM lost") == 2


def test_debug_lines_show_when_asked(story: Story) -> None:
    events = story.started(), story.job(), story.step(), story.annotation("inner state", "debug")
    assert "inner state" not in shown(*events)
    assert "    debug: inner state\n" in shown(*events, debug=True)


def test_a_step_summary_is_shown_as_markdown(story: Story) -> None:
    summary = story.summary("<h2>Results</h2>\n\n* 3 passed\n")
    text = shown(story.started(), story.job(), story.step(), summary, story.step_done(), story.finished())
    assert "Summary of Build / Compile\n  ## Results\n\n  * 3 passed\n" in text


def test_runs_that_share_the_stream_are_told_apart(story: Story, another_story: Story) -> None:
    text = shown(
        story.started(),
        another_story.started(),
        story.session(),
        another_story.session(),
        story.job("a", "A"),
        another_story.job("b", "B"),
        story.output("from CI\n", 1, "a"),
        another_story.output("from Docs\n", 1, "b"),
        story.job_done("a", "A"),
        story.finished(),
        another_story.finished("failure"),
        multiple=True,
    )
    assert "CI │ VM vm-1 · qemu" in text
    assert "Docs │ VM vm-2 · qemu" in text
    assert "CI / A   │     from CI\n" in text
    assert "Docs / B │     from Docs\n" in text
    assert text.index("from Docs") < text.index("✓ A    "), "the summaries stand together at the end"
    assert text.endswith("✓ CI succeeded after 3.0 s\n✗ Docs failed after 3.0 s\n")


def test_a_run_cut_short_says_so(story: Story) -> None:
    text = shown(
        story.started(lint="Lint", test="Test"), story.job("lint", "Lint"), story.step(1, "Check", "lint")
    )
    assert text.endswith(
        "\n■ Lint               unfinished\n  ■ Check            unfinished\n○ Test               not started\n"
        "\n■ CI did not finish\n"
    )


def test_a_run_refused_at_once_is_one_line_more(story: Story) -> None:
    assert shown(story.started()) == "CI · push · .github/workflows/ci.yml\n\n■ CI did not finish\n"


def test_log_lines_go_to_standard_error() -> None:
    out, err = io.StringIO(), io.StringIO()
    Plain(out, err).log("Released session s-1 with VM vm-1")
    assert (out.getvalue(), err.getvalue()) == ("", "Released session s-1 with VM vm-1\n")


def test_very_long_names_are_cut(story: Story) -> None:
    text = shown(
        story.started(),
        story.job(name="J" * 5000),
        story.step(1, "S" * 5000),
        story.job_done(name="J" * 5000),
    )
    assert max(map(len, text.splitlines())) < 260


@given(
    st.lists(
        st.sampled_from(["\x1b", "\x1b[", "\x1b]0;", "\x9b", "2J", "31m", "\x07", "\r", "\n", "x"])
        | st.text()
    )
)
def test_no_escape_reaches_a_log(pieces: list[str]) -> None:
    text = "".join(pieces)
    said = shown(StepOutput(run_id="r", at=0.0, job="j", leg=None, step=1, text=text))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said)


def test_a_run_with_a_name_of_its_own_is_called_by_it(story: Story) -> None:
    assert shown(story.started(name="Prices\x1b[31m\nby @mona")).splitlines()[0] == (
        "Prices by @mona · CI · push · .github/workflows/ci.yml"
    )


def test_who_waits_sees_its_place_in_the_line(story: Story) -> None:
    lines = shown(story.started(), story.waiting(2), story.waiting(1, limit=1)).splitlines()
    assert lines[1:3] == [
        "waiting for a place: number 2 in the line (4 sessions at most on this machine)",
        "waiting for a place: next in the line (1 session at most on this machine)",
    ]
