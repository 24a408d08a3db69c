"""The report as JSON: its shape is documented in docs/verify.md and has a number."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from cloche import __version__
from cloche.verify.judge import REQUIREMENTS, requirement_holds
from cloche.verify.report import SCHEMA, STATIC, scenario_counts

if TYPE_CHECKING:
    from cloche.verify.observations import ScenarioSeen
    from cloche.verify.report import Report


def to_json(report: Report) -> str:
    """Render the report as one JSON document."""
    return json.dumps(as_data(report), indent=2) + "\n"


def as_data(report: Report) -> dict[str, Any]:
    """Return the document as JSON-ready data."""
    checks = [dataclasses.asdict(check) for check in report.checks]
    return {
        "schema": SCHEMA,
        "passed": report.passed,
        "verdict": report.verdict,
        "at": report.at,
        "seconds": round(report.seconds, 3),
        "cloche": __version__,
        "provider": report.seen.provider,
        "own_kernel": report.seen.own_kernel,
        "machine": dict(report.machine),
        "notes": list(report.notes),
        "weaker_evidence": list(report.weaker),
        "static": STATIC,
        "requirements": [
            {
                "id": name,
                "text": text,
                "passed": requirement_holds(report.checks, name),
                "checks": [check for check in checks if check["requirement"] == name],
            }
            for name, text in REQUIREMENTS.items()
        ],
        "scenarios": [_scenario(report, scenario) for scenario in report.seen.scenarios],
    }


def _scenario(report: Report, scenario: ScenarioSeen) -> dict[str, Any]:
    return {
        "id": scenario.id,
        "title": scenario.title,
        "passed": report.passes(scenario.id),
        "limit": scenario.limit,
        "recycling": scenario.recycling,
        "seconds": round(scenario.seconds, 3),
        **scenario_counts(scenario),
        "runs": [dataclasses.asdict(run) for run in scenario.runs],
        "calls": [dataclasses.asdict(call) for call in scenario.calls],
        "ended": [dataclasses.asdict(vm) for vm in scenario.ended],
        "left": list(scenario.left),
        "log": list(scenario.log),
    }
