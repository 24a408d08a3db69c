"""The verification report: what was found, as data and as tables that every form of it shows."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from cloche import __version__
from cloche.records import record
from cloche.report.text import one_line
from cloche.units import format_duration
from cloche.verify.judge import REQUIREMENTS, requirement_holds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.verify.judge import Check
    from cloche.verify.observations import ScenarioSeen, Seen

SCHEMA = "cloche.verification/1"
"""The name of the JSON form's shape; see docs/verify.md. Another number means another shape."""
STATIC = (
    "Beyond what was measured here: that no module under the step loop can reach the pool, a provider or the session"
    " manager by whatever imports is a property of Cloche's source, which its test suite holds"
    " (tests/unit/test_repository.py and import-linter's contracts). This report did not check it."
)
_SANDBOX = (
    "sandbox: there is no VM. All sandboxes share the host's kernel; the boot id that steps read is one that the agent"
    " shows for each sandbox, not a kernel's own. Marks in the kernel and a moved clock were not tried, since both"
    " would be the host's."
)
_FAKE = (
    "fake: nothing really ran. Guests are Python objects without processes, mounts, sockets or clocks to leave traces"
    " in; this shows only that Cloche's own parts keep the rules."
)
_WEAKER = {"sandbox": (_SANDBOX,), "fake": (_FAKE,)}


@record
class Table:
    """A table: its title, what its columns are, its rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@record
class Report:
    """A verification's outcome. ``at`` is when it began, in seconds since the epoch; ``seconds`` how long it took.

    ``machine`` are facts about the machine and versions. ``notes`` are the provider's own.
    """

    at: float
    seconds: float
    machine: Mapping[str, str]
    notes: tuple[str, ...]
    seen: Seen
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every requirement holds."""
        return all(requirement_holds(self.checks, name) for name in REQUIREMENTS)

    @property
    def failed(self) -> tuple[str, ...]:
        """The requirements that do not hold."""
        return tuple(name for name in REQUIREMENTS if not requirement_holds(self.checks, name))

    @property
    def when(self) -> str:
        """When it began, in UTC."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.at))

    @property
    def weaker(self) -> tuple[str, ...]:
        """What this provider's evidence cannot show."""
        return _WEAKER.get(self.seen.provider, ())

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        good = sum(check.passed for check in self.checks)
        counted = f"{good} of {len(self.checks)} checks good"
        if self.passed:
            return f"PASSED: all {len(REQUIREMENTS)} requirements hold ({counted})"
        return f"FAILED: {', '.join(self.failed)} ({counted})"

    def passes(self, scenario: str) -> bool:
        """Whether every finding of a scenario is good."""
        return all(check.passed for check in self.checks if check.scenario == scenario)

    # Tables

    def scenarios(self) -> Table:
        """Return a row for each scenario."""
        columns = (
            "scenario", "what", "workflows", "steps", "allocations", "VM ids", "boot ids", "sessions", "result",
        )  # fmt: skip
        return Table("Scenarios", columns, tuple(self._row(scenario) for scenario in self.seen.scenarios))

    def _row(self, scenario: ScenarioSeen) -> tuple[str, ...]:
        counts = scenario_counts(scenario)
        return (
            scenario.id,
            scenario.title,
            *(str(count) for count in counts.values()),
            "passed" if self.passes(scenario.id) else "FAILED",
        )

    def matrix(self) -> Table:
        """Return a row for each requirement, with the measurements that decide it."""
        rows = []
        for name, text in REQUIREMENTS.items():
            about = [check for check in self.checks if check.requirement == name]
            bad = [
                f"{check.scenario}: {check.claim}: {check.measured}" for check in about if not check.passed
            ]
            measured = "; ".join(bad) or f"{len(about)} of {len(about)} checks good"
            holds = "holds" if requirement_holds(self.checks, name) else "FAILS"
            rows.append((name, text, measured, holds))
        return Table("Compliance", ("requirement", "what it says", "measured", "verdict"), tuple(rows))

    def measurements(self) -> Table:
        """Return a row for each finding."""
        rows = tuple(
            (
                check.requirement,
                check.scenario,
                check.claim,
                one_line(check.measured, 400),
                "good" if check.passed else "BAD",
            )
            for check in sorted(self.checks, key=lambda check: (check.requirement, check.scenario))
        )
        return Table("Measurements", ("requirement", "scenario", "claim", "measured", ""), rows)

    def workflows(self) -> Table:
        """Return a row for each workflow: what it ran in, as its steps told it from inside."""
        rows = []
        for run in self.seen.runs:
            session = run.sessions[0] if run.sessions else None
            inside = sorted({one_line(step.said.boot_id or "nothing", 60) for step in run.steps})
            names = sorted({one_line(step.said.hostname or "nothing", 60) for step in run.steps})
            outcome = "refused" if run.refused is not None else run.conclusion or "error"
            session_id, vm_id = (session.session_id, session.vm_id) if session else ("none", "none")
            rows.append(
                (run.name, session_id, vm_id, _few(names), _few(inside), str(len(run.steps)), outcome)
            )
        columns = ("workflow", "session", "VM id", "hostname inside", "boot id inside", "steps", "outcome")
        return Table("Workflows", columns, tuple(rows))

    def timings(self) -> Table:
        """Return a row for each workflow that ran."""
        rows = []
        for run in self.seen.runs:
            if run.sessions:
                took = [step.seconds for step in run.steps]
                rows.append(
                    (
                        run.name,
                        run.sessions[0].source,
                        format_duration(run.sessions[0].allocation),
                        format_duration(statistics.median(took)) if took else "",
                        format_duration(run.seconds),
                    )
                )
        calls = [call for scenario in self.seen.scenarios for call in scenario.calls]
        resets = [call for call in calls if call.kind == "reset" and call.error is None]
        rows += [(f"reset of {call.vm_id}", "", format_duration(call.seconds), "", "") for call in resets]
        return Table(
            "Timings", ("workflow", "source", "VM ready in", "median step", "whole run"), tuple(rows)
        )

    def facts(self) -> Table:
        """Return a row for each fact about the machine."""
        kernels = sorted({one_line(call.kernel, 80) for s in self.seen.scenarios for call in s.allocations})
        facts = {"provider": self.seen.provider, "guest kernel": _few(kernels), **self.machine}
        facts["Cloche"] = __version__
        return Table("Machine", ("what", "value"), tuple(facts.items()))

    def log(self) -> tuple[str, ...]:
        """Return the operators' lines of each scenario, under its name."""
        lines: list[str] = []
        for scenario in self.seen.scenarios:
            lines += [f"# {scenario.id}: {scenario.title}", *(one_line(line, 300) for line in scenario.log)]
        return tuple(lines)


def scenario_counts(scenario: ScenarioSeen) -> dict[str, int]:
    """Count what the scenario table shows."""
    sessions = [session for run in scenario.runs for session in run.sessions]
    return {
        "workflows": len(scenario.runs),
        "steps": sum(len(run.steps) for run in scenario.runs),
        "allocations": len(scenario.allocations),
        "vm_ids": len({session.vm_id for session in sessions}),
        "boot_ids": len({boot_id for run in scenario.runs for boot_id in run.boot_ids}),
        "sessions": len(sessions),
    }


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004 - a cell
