"""What all tests share: how hard hypothesis tries, the order of the suites, annotations on GitHub and in Cloche."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# What the end-to-end tests share asserts too, and is to say as much as they do.
pytest.register_assert_rewrite("tests.e2e")

# Started in the background of a script the suite finds SIGINT ignored, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples have no deadline of their own: a busy machine is no failure, and pytest-timeout ends what hangs.
settings.register_profile("local", deadline=None)
# The same few examples each time: a check of somebody's change is not the place to find something new.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, max_examples=15)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "local"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what is fast first, then sandboxes, then real guests."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is not None for name in ("vm", "sandbox")])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Annotate what failed, with its file and line.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for report in [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]:
        path, line, message = _failure(report, config.rootpath)
        place = f"file={_escaped(path)},line={line},title={_escaped(report.nodeid)}"
        terminalreporter.write_line(f"::error {place}::{_escaped(message, but='')}")


def _failure(report: pytest.TestReport | pytest.CollectReport, root: Path) -> tuple[Path, int, str]:
    """Return what failed where: the line that raised if it is below ``root``, else the test."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash else report.longreprtext
    if crash and Path(crash.path).is_relative_to(root):
        return Path(crash.path).relative_to(root), crash.lineno, message
    path, line, _ = report.location or (report.nodeid, 0, "")
    return Path(path), (line or 0) + 1, message


def _escaped(text: object, but: str = ":,") -> str:
    for character in f"%\r\n{but}":
        text = str(text).replace(character, f"%{ord(character):02X}")
    return str(text)
