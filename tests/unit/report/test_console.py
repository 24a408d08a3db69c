from __future__ import annotations

import io
import os
import pty
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.events import (
    Annotation,
    JobStarted,
    Notice,
    RunStarted,
    StepGroup,
    StepOutput,
    StepStarted,
    StepSummary,
)
from cloche.report.console import ConsoleReporter
from cloche.report.region import Line, Region
from cloche.report.sink import Sink
from cloche.report.text import cells, without_colour

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.report.conftest import Stage, Story

    MakeStage = Callable[..., Stage]

LIVE = """\
CI · push · .github/workflows/ci.yml
VM vm-1 · qemu, restored in 87 ms · guest kernel 6.1.0-56 · boot id 0f1e2d3c
● Build
  ✓ Compile · 1.0 s
  ▶ Test
    E   assert 1 == 2

⠋ CI · 0 of 2 jobs done · vm-1                      5 s
  ⠋ Build                                           5 s
    ✓ Compile                                     1.0 s
    ⠋ Test                                          5 s
    ○ 1 more step
  ○ Deploy"""

CLOSING = """\
✗ Build         2.6 s  ━━━━━━━━━━━━━━━━━━━━
  ✓ Compile     1.0 s  ━━━━━━━━
  ✗ Test        1.5 s  ━━━━━━━━━━━━          exit code 1
  ⊘ Upload    skipped

1 error
  ✗ tests/test_sum.py:12  assert 1 == 2

Build / Test  exit code 1
  │ E   assert 1 == 2

✗ CI failed after 3.0 s
  2 steps in VM vm-1, same boot id throughout, released
  run this job again: cloche run .github/workflows/ci.yml -j build"""


def test_output_scrolls_by_above_the_live_tree(story: Story, stage: MakeStage) -> None:
    scene = stage()
    scene.now = 1005.0
    shown = scene.play(
        story.started(build="Build", deploy="Deploy"),
        story.session(),
        story.job(steps=3),
        story.step(),
        story.step_done(),
        story.step(2, "Test"),
        story.output("E   assert 1 == 2\n", 2),
    )
    assert shown == LIVE


def test_the_tree_makes_room_for_the_summary(story: Story, stage: MakeStage) -> None:
    scene = stage()
    shown = scene.whole(*story.failing())
    assert shown.endswith("\n\n" + CLOSING)
    assert "⠋" not in shown


def test_the_cursor_hides_while_the_tree_is_there_and_comes_back(story: Story, stage: MakeStage) -> None:
    scene = stage()
    with scene.reporter:
        scene.play(story.started(), story.job())
        assert not scene.screen.cursor_visible
    assert scene.screen.cursor_visible


def test_while_somebody_else_has_the_terminal_nothing_moves(story: Story, stage: MakeStage) -> None:
    scene = stage()
    before = scene.play(story.started(), story.job())
    assert "⠋" in before
    scene.reporter.rest()
    assert "⠋" not in scene.screen.shown()
    assert scene.screen.cursor_visible
    written = len(scene.screen.raw)
    scene.now += 10
    scene.reporter.draw()
    assert len(scene.screen.raw) == written
    scene.reporter.wake()
    assert "⠋" in scene.play()
    assert not scene.screen.cursor_visible


def test_the_cursor_comes_back_after_an_error(story: Story, stage: MakeStage) -> None:
    scene = stage()
    scene.play(story.started(), story.job())
    with pytest.raises(KeyboardInterrupt), scene.reporter:
        raise KeyboardInterrupt
    assert scene.screen.cursor_visible
    assert scene.screen.shown().endswith("■ CI did not finish")


def test_a_group_is_folded_to_its_title_once_closed(story: Story, stage: MakeStage) -> None:
    scene = stage()
    scene.play(story.started(), story.job(), story.step(), story.group("Install"))
    open_group = scene.play(story.output("one\ntwo\n"))
    assert "▸ Install · 2 lines" in open_group
    assert "two" in open_group.splitlines()[-1], "the last line of an open group is shown in the tree"
    closed = scene.play(story.group(None), story.output("after\n"))
    assert "    ▸ Install · 2 lines\n    after\n" in closed
    assert "two" not in closed


def test_a_failing_step_unfolds_its_groups(story: Story, stage: MakeStage) -> None:
    shown = stage().play(
        story.started(),
        story.job(),
        story.step(),
        story.group("Install"),
        story.output("hidden reason\n"),
        story.group("Never closed"),
        story.output("other reason\n"),
        story.step_done(conclusion="failure", exit_code=1),
    )
    assert "    ▾ Install\n      hidden reason\n    ▾ Never closed\n      other reason\n  ✗ Compile" in shown


def test_a_huge_group_unfolds_to_its_end(story: Story, stage: MakeStage) -> None:
    shown = stage().play(
        story.started(),
        story.job(),
        story.step(),
        story.group("Build log"),
        *(
            story.output("".join(f"line {number}\n" for number in range(start, start + 500)))
            for start in (0, 500)
        ),
        story.step_done(conclusion="failure", exit_code=1),
    )
    assert "    ▾ Build log\n      … 500 lines before\n      line 500\n" in shown
    assert "      line 999\n  ✗ Compile" in shown


def test_jobs_side_by_side_say_whose_line_it_is(story: Story, stage: MakeStage) -> None:
    shown = stage().play(
        story.started(),
        story.job("a", "Lint"),
        story.job("b", "Test (3.11)"),
        story.step(1, "Run", "b"),
        story.output("one\n\ntwo\n", 1, "b"),
        story.job_done("a", "Lint"),
        story.output("three\n", 1, "b"),
    )
    assert (
        "● Lint\n"
        "Test (3.11) │ ● Test (3.11)\n"
        "Test (3.11) │   ▶ Run\n"
        "Test (3.11) │     one\n"
        "Test (3.11) │\n"
        "Test (3.11) │     two\n"
        "Lint        │ ✓ Lint · 2.0 s\n"
        "Test (3.11) │     three\n"
    ) in shown


def test_runs_that_share_the_terminal_have_a_tree_each(
    story: Story, another_story: Story, stage: MakeStage
) -> None:
    scene = stage(multiple=True)
    with scene.reporter:
        live = scene.play(
            story.started(), another_story.started(), story.job("a", "A"), another_story.job("b", "B")
        )
        assert "⠋ CI · 0 of 2 jobs done" in live
        assert "⠋ Docs · 0 of 2 jobs done" in live
        scene.play(story.job_done("a", "A"), story.finished())
        assert "⠋ CI" not in scene.screen.shown()
        scene.play(another_story.finished("failure"))
    assert scene.screen.shown().endswith("✓ CI succeeded after 3.0 s\n✗ Docs failed after 3.0 s")


@pytest.mark.parametrize("columns", [1, 2, 10, 20, 40, 60, 79, 200])
def test_the_live_lines_fit_any_width(story: Story, stage: MakeStage, columns: int) -> None:
    scene = stage(columns=columns)
    name = "A very long name 漢字 " * 20
    scene.play(story.started(build=name, deploy=name), story.session(), story.job(name=name, steps=3))
    scene.play(story.step(1, name), story.group(name), story.output("x" * 500 + "\n"))
    live = scene.screen.raw.rpartition("\x1b[?7l")[2].partition("\x1b[?7h")[0]
    assert all(cells(line) < max(columns, 20) for line in without_colour(live).splitlines())
    scene.whole(story.annotation("m" * 300, file="f" * 300, line=1), *story.failing())


def test_forty_columns_still_read_well(story: Story, stage: MakeStage) -> None:
    shown = stage(columns=40).whole(*story.failing())
    assert shown.endswith("""\
✗ Build         2.6 s
  ✓ Compile     1.0 s
  ✗ Test        1.5 s  exit code 1
  ⊘ Upload    skipped

1 error
  ✗ tests/test_sum.py:12  assert 1 == 2

Build / Test  exit code 1
  │ E   assert 1 == 2

✗ CI failed after 3.0 s
  2 steps in VM vm-1, same boot id
  throughout, released
  run this job again: cloche run
  .github/workflows/ci.yml -j build""")


def test_few_rows_show_what_matters_first(story: Story, stage: MakeStage) -> None:
    jobs = {f"j{number}": f"Job {number}" for number in range(30)}
    scene = stage(rows=12)
    events = [story.started(**jobs), *(story.job_done(f"j{number}", f"Job {number}") for number in range(10))]
    shown = scene.play(*events, story.job("j20", "Job 20"), story.step(1, "Now", "j20"))
    live = shown[shown.index("⠋ CI") :].splitlines()
    assert len(live) == 6
    assert live[0].startswith("⠋ CI · 10 of 30 jobs done")
    assert any("Job 20" in line for line in live)
    assert any("Now" in line for line in live)
    assert live[-1] == "  … 27 more"


def test_a_terminal_made_narrower_is_no_trouble(story: Story, stage: MakeStage) -> None:
    scene = stage(columns=100)
    scene.play(
        story.started(), story.session(), story.job(), story.step(1, "A step with quite a long name " * 3)
    )
    scene.screen.resize(40)
    scene.now += 1
    shown = scene.play(story.output("text\n"))
    assert shown.count("⠙") + shown.count("⠋") + shown.count("⠇") <= 3, "the folded old tree is gone"
    assert shown.count("jobs done") + shown.count("job done") == 1


def test_at_most_ten_frames_a_second_are_drawn(story: Story, stage: MakeStage) -> None:
    scene = stage()
    scene.play(story.started(), story.job(), story.step())
    before = scene.screen.frames
    for _ in range(1000):
        scene.now += 0.001
        scene.reporter(story.output("text\n"))
    assert scene.screen.frames - before <= 10


def test_a_flood_is_passed_on_between_frames_and_not_kept(story: Story, stage: MakeStage) -> None:
    scene = stage()
    scene.play(story.started(), story.job(), story.step())
    for _ in range(40):
        scene.reporter(story.output("x" * 65_535 + "\n"))
    assert len(scene.screen.raw) > 1_500_000
    assert sum(map(len, scene.reporter._pending)) <= 1_200_000


def test_markdown_is_rendered(story: Story, stage: MakeStage) -> None:
    summary = story.summary(
        "# Results\n\n| suite | failed |\n|---|---|\n| unit | **1** |\n\n```python\nx = 1\n```\n"
    )
    shown = stage().whole(
        story.started(), story.job(), story.step(), summary, story.step_done(), story.finished()
    )
    assert (
        """
Summary of Build / Compile
  Results

   suite  failed
   ─────────────
   unit   1

    x = 1

"""
        in shown
    )


@pytest.mark.parametrize(
    "hostile",
    ["&#27;[2J", "</kbd></kbd></kbd>", "&lt;/kbd&gt;", "[x](\x1b]8;;e\x07)", "> " * 500, "![](" * 500],
)
def test_hostile_markdown_is_only_text(story: Story, stage: MakeStage, hostile: str) -> None:
    scene = stage(columns=30)
    scene.whole(
        story.started(),
        story.job(),
        story.step(),
        story.summary(hostile),
        story.step_done(),
        story.finished(),
    )


def test_links_in_markdown_show_their_target(story: Story, stage: MakeStage) -> None:
    summary = story.summary("[friendly](https://elsewhere.example)")
    shown = stage().whole(
        story.started(), story.job(), story.step(), summary, story.step_done(), story.finished()
    )
    assert "friendly (https://elsewhere.example)" in shown


def test_a_guest_may_use_colours_and_nothing_else(story: Story, stage: MakeStage) -> None:
    scene = stage()
    scene.play(story.started(), story.job(), story.step(), story.output("\x1b[31mred\x1b[2J\n"))
    assert "    \x1b[31mred\x1b[0m\n" in scene.screen.raw


def test_no_colour_means_none(story: Story, stage: MakeStage) -> None:
    scene = stage(NO_COLOR="1")
    scene.whole(*story.failing()[:-1], story.output("\x1b[31mred\n"), story.finished("failure"))
    codes = ";".join(re.findall(r"\x1b\[([0-9;]*)m", scene.screen.raw)).split(";")
    assert {int(code) for code in codes} <= {0, 1, 2, 4}, "bold, dim and underlined are no colours"


def test_log_lines_scroll_by_with_the_rest(story: Story, stage: MakeStage) -> None:
    scene = stage()
    scene.play(story.started(), story.job())
    scene.reporter.log("Allocated VM vm-1 in 87 ms for session s-1")
    assert "Allocated VM vm-1 in 87 ms for session s-1\n\n⠋ CI" in scene.play()


def test_log_lines_go_to_a_standard_error_that_is_elsewhere(stage: MakeStage) -> None:
    screen, err = stage().screen, io.StringIO()
    ConsoleReporter(screen, err, {"TERM": "xterm"}, animate=False, size=screen.size).log("line")
    assert err.getvalue() == "line\n"


def test_the_spinner_turns_by_itself_and_leaves_no_thread(story: Story) -> None:
    controller, terminal = pty.openpty()
    threads = threading.active_count()
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        with ConsoleReporter(stream, stream, {"TERM": "xterm-256color"}) as reporter:
            reporter(story.started())
            seen = ""
            while not re.search("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏].*[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", seen, re.DOTALL):
                seen += os.read(controller, 4096).decode("utf-8", "replace")
        assert threading.active_count() == threads
        os.set_blocking(controller, False)
        assert os.read(controller, 65536).endswith(b"\x1b[?25h\x1b[?2026l")
    os.close(controller)


@given(
    st.lists(
        st.sampled_from(
            ["\x1b", "\x1b[", "\x1b]0;", "\x9b", "2J", "31m", "\x07", "\r", "\n", "\x1b[1m", "&#27;"]
        )
        | st.text(),
        max_size=8,
    ).map("".join)
)
@settings(deadline=None)
def test_whatever_a_guest_says_moves_no_cursor(text: str) -> None:
    out = io.StringIO()
    reporter = ConsoleReporter(
        out, out, {"TERM": "xterm"}, animate=False, clock=lambda: 0.0, size=lambda: os.terminal_size((50, 20))
    )
    with reporter:
        base: dict[str, Any] = {"run_id": text, "at": 0.0}
        step: dict[str, Any] = {**base, "job": text, "leg": text, "step": 1}
        reporter(RunStarted(**base, workflow=text, path=text, event=text, jobs={text: text}))
        reporter(Notice(**base, level="warning", message=text))
        reporter(JobStarted(**base, job=text, leg=text, name=text, steps=1))
        reporter(StepStarted(**step, id=text, name=text))
        reporter(StepOutput(**step, text=text))
        reporter(StepGroup(**step, title=text))
        reporter(StepOutput(**step, text=text))
        reporter(Annotation(**step, level="error", message=text, title=text, file=text, line=1))
        reporter(StepSummary(**step, markdown=text))
        reporter.draw()
    # The frames that the console itself draws with, and colours, are all there is.
    said = re.sub(r"\x1b\[(\?(25|7|2026)[hl]|[0-9;:]*m)|\r\x1b\[[0-9]+A\x1b\[J", "", out.getvalue())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said)


def test_the_region_does_not_redraw_what_is_there_already() -> None:
    out = io.StringIO()
    region, size = Region(Sink(out)), os.terminal_size((80, 24))
    region.update("", [Line("a", 1)], size)
    before = out.getvalue()
    region.update("", [Line("a", 1)], size)
    assert out.getvalue() == before


def test_the_tree_says_that_a_run_waits_until_it_has_its_vm(story: Story, stage: MakeStage) -> None:
    scene = stage(columns=100)
    shown = scene.play(story.started(), story.waiting(3))
    assert "CI · 0 of 1 job done · waiting for a place: number 3 in the line" in shown
    assert "⠋ CI · 0 of 1 job done · vm-1" in scene.play(story.session())
