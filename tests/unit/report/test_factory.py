from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cloche.report import make_reporter
from cloche.report.console import ConsoleReporter
from cloche.report.jsonl import JsonLines
from cloche.report.plain import Plain
from cloche.report.quiet import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.report.factory import Output
    from tests.unit.report.conftest import Stage, Story


@pytest.mark.parametrize(
    ("output", "quiet", "terminal", "env", "kind"),
    [
        ("console", False, True, {"TERM": "xterm"}, ConsoleReporter),
        ("console", False, True, {"TERM": "dumb"}, Plain),
        ("console", False, True, {}, Plain),
        ("console", False, False, {"TERM": "xterm"}, Plain),
        ("console", True, True, {"TERM": "xterm"}, Quiet),
        ("plain", False, True, {"TERM": "xterm"}, Plain),
        ("plain", True, False, {}, Quiet),
        ("jsonl", False, True, {"TERM": "xterm"}, JsonLines),
        ("jsonl", True, False, {}, JsonLines),
    ],
)
def test_the_display_suits_the_stream(
    stage: Callable[..., Stage],
    *,
    output: Output,
    quiet: bool,
    terminal: bool,
    env: dict[str, str],
    kind: type,
) -> None:
    stdout = stage().screen if terminal else io.StringIO()
    reporter = make_reporter(output, quiet, stdout, io.StringIO(), env, multiple=False)
    assert type(reporter) is kind


@pytest.mark.parametrize("env", [{"RUNNER_DEBUG": "1"}, {"ACTIONS_STEP_DEBUG": "true"}])
def test_githubs_switches_show_debug_lines(story: Story, env: dict[str, str]) -> None:
    out = io.StringIO()
    make_reporter("plain", False, out, out, env, multiple=False)(story.annotation("inner", "debug"))
    assert "debug: inner" in out.getvalue()


def test_rich_is_loaded_for_the_console_only() -> None:
    code = (
        "import io, sys; from cloche.report import make_reporter; "
        "[make_reporter(kind, False, io.StringIO(), io.StringIO(), {}, multiple=False) "
        "for kind in ('console', 'plain', 'jsonl')]; assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
