"""Findings as SARIF 2.1.0, which code-scanning services read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloche import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.check.judge import Finding, Judged

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = {
    "error": ("workflow-refused", "GitHub refuses the workflow, and Cloche does"),
    "warning": ("not-carried-out", "GitHub takes the workflow, Cloche does not carry it out yet"),
}


def as_sarif(judged: Sequence[Judged]) -> str:
    """Return a log of one run with a result for each finding."""
    rules = [{"id": id_, "shortDescription": {"text": text}} for id_, text in _RULES.values()]
    run = {
        "tool": {"driver": {"name": "cloche", "version": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(one) for file in judged for one in file.findings],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(one: Finding) -> dict[str, Any]:
    place, hint = one.diagnostic.position, one.diagnostic.hint
    text = f"{one.diagnostic.message} (hint: {hint})" if hint else one.diagnostic.message
    location = {
        "artifactLocation": {"uri": quote(place.file)},
        "region": {"startLine": place.line, "startColumn": place.column},
    }
    return {
        "ruleId": _RULES[one.severity][0],
        "level": one.severity,
        "message": {"text": text},
        "locations": [{"physicalLocation": location}],
    }
