"""The three forms of a report: the same content, and nothing that a guest said is markup."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cloche.verify.console import VerifyConsole
from cloche.verify.jsonform import as_data, to_json
from cloche.verify.judge import REQUIREMENTS, judge
from cloche.verify.markdown import to_markdown
from cloche.verify.page import to_html
from cloche.verify.report import Report
from cloche.verify.stage import Progress
from tests.unit.verify.observed import good, with_run, with_said, with_scenario

PAGE = (Path(__file__).parents[3] / "docs/verify.md").read_text("utf-8")
HOSTILE = "<script>alert(1)</script>|`*_[x](http://evil)\x1b[31m\x1b]0;title\x07\u202e&amp;"


def report(seen: Any = None) -> Report:
    seen = seen or good()
    machine = {"processor": "2 of Some Processor", "host kernel": "6.1"}
    return Report(1_700_000_000.0, 12.3, machine, ("no KVM",), seen, judge(seen))


def hostile() -> Report:
    """A report on a guest that says nasty things wherever it is asked."""
    seen = with_said(good(), "T1", 2, boot_id=HOSTILE, hostname=HOSTILE, kernel_mark=HOSTILE)
    seen = with_run(seen, "T2-1", lambda run: replace(run, error=HOSTILE))
    seen = with_scenario(seen, "T3", lambda one: replace(one, log=(HOSTILE, *one.log), left=(HOSTILE,)))
    calls = with_scenario(
        seen, "T1", lambda one: replace(one, calls=tuple(replace(call, kernel=HOSTILE) for call in one.calls))
    )
    return report(calls)


class Page(HTMLParser):
    """Collects a page's tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in {"src", "href"} for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_all_forms_say_the_same() -> None:
    passed = report()
    markdown, page = to_markdown(passed), "".join(Page(to_html(passed)).text)
    for text in (markdown.replace("\\", ""), page):
        assert "PASSED: all 6 requirements hold" in text
        for words in (
            *REQUIREMENTS.values(),
            *(check.claim for check in passed.checks),
            "Allocated VM vm-1 in 84 ms",
        ):
            assert words in text
        for fact in ("2 of Some Processor", "no KVM", "2023-11-14 22:13:20 UTC"):
            assert fact in text
        assert "This report did not check it." in text
    data = json.loads(to_json(passed))
    assert data["verdict"] == passed.verdict
    claims = [check["claim"] for requirement in data["requirements"] for check in requirement["checks"]]
    assert sorted(claims) == sorted(check.claim for check in passed.checks)


def test_what_fails_is_named() -> None:
    seen = with_said(good(), "T1", 3, alive=False)
    failed = report(seen)
    assert failed.verdict.startswith("FAILED: R2 (")
    assert failed.failed == ("R2",)
    assert [failed.passes(name) for name in ("T1", "T2")] == [False, True]
    row = next(row for row in failed.matrix().rows if row[0] == "R2")
    assert row[2] == "T1: the first step's process still runs: 4 of 5 steps; not T1 step 3"
    assert row[3] == "FAILS"
    data = as_data(failed)
    assert [one["id"] for one in data["requirements"] if not one["passed"]] == ["R2"]


def test_the_scenario_table_counts() -> None:
    rows = {row[0]: row[2:] for row in report().scenarios().rows}
    assert rows == {
        "T1": ("1", "5", "1", "1", "1", "1", "passed"),
        "T2": ("3", "15", "3", "3", "3", "3", "passed"),
        "T3": ("2", "4", "1", "1", "2", "2", "passed"),
        "T4": ("3", "2", "2", "2", "2", "2", "passed"),
    }


@pytest.mark.parametrize("provider", ["sandbox", "fake"])
def test_weaker_evidence_is_said_to_be(provider: str) -> None:
    weak = report(replace(good(), provider=provider, own_kernel=False))
    assert weak.weaker
    for render in (to_markdown, to_html, to_json):
        assert "eaker" in render(weak)
    assert not report().weaker


def test_a_hostile_guest_writes_no_markup_into_the_page() -> None:
    page = Page(to_html(hostile()))
    assert "script" not in page.tags
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "pre", "div"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    text = "".join(page.text)
    assert "<script>alert(1)</script>" in text, "what was said is shown as it was said"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_hostile_guest_writes_no_markup_into_markdown() -> None:
    text = to_markdown(hostile())
    body, _, log = text.partition("## Log")
    assert not re.search(r"(?<!\\)[<`]", body)
    assert not re.search(r"(?<!\\)\[x", body)
    tables = [line for line in body.splitlines() if line.startswith("|")]
    for header, *rows in (block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE)):
        columns = len(re.findall(r"(?<!\\)\|", header))
        assert all(len(re.findall(r"(?<!\\)\|", row)) == columns for row in rows)
    assert tables
    assert all(line.startswith("    ") for line in log.splitlines() if line)
    assert "\x1b" not in text


def test_the_console_shows_the_outcome_and_no_guests_control_sequences() -> None:
    stream = io.StringIO()
    with VerifyConsole(stream) as console:
        console.tell(Progress("T1", "one workflow", "running", 1, 5, 1))
        console.tell(Progress("T1", "one workflow", "failed", 5, 5, 1))
    console.show(hostile())
    said = stream.getvalue()
    assert said.startswith("T1 failed: one workflow\n")
    assert "R2 fails in T1: the boot id read in the step is the session's" in said
    assert "FAILED: R2" in said
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_the_page_of_the_manual_names_the_keys_of_the_json_form() -> None:
    data = as_data(report())
    rows = re.findall(r"^\| (`\w[^|]*) \| ([^|]*) \|$", PAGE.partition("The JSON form")[2], re.MULTILINE)
    told = {key for keys, _ in rows for key in re.findall(r"`([\w\[\].]+)`", keys)}
    assert {key for key in told if "." not in key} == data.keys()
    scenario = data["scenarios"][0]
    named = set(re.findall(r"`(\w+)`", dict(rows)["`scenarios`"]))
    named |= {key.rpartition(".")[2] for key in told if key.startswith("scenarios[]")}
    assert named == scenario.keys()
    check = data["requirements"][0]["checks"][0]
    assert set(re.findall(r"`(\w+)`", dict(rows)["`requirements[].checks`"])) == check.keys()


def test_json_has_nothing_that_only_python_knows() -> None:
    text = to_json(hostile())
    assert json.loads(text, parse_constant=pytest.fail)["passed"] is False
    assert dataclasses.asdict(report().seen.runs[0])["nonce"] in to_json(report())
