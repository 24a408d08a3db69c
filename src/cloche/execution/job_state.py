"""A job as its steps see it: what is fixed before the first one, and what they change."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from cloche.execution.contexts import env_context
from cloche.execution.line_commands import Issue, command_failed
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cloche.errors import GuestError
    from cloche.events import Conclusion
    from cloche.execution.gitstate import EventInfo
    from cloche.execution.line_commands import Assign
    from cloche.execution.masking import Masker
    from cloche.execution.output_limit import OutputLimit
    from cloche.execution.visits import Visits
    from cloche.expressions import Value
    from cloche.workflow.model import Job

MAX_VALUES = 64 * 1024 * 1024
"""Characters of outputs, variables and states that one job can make the host keep; GitHub's limit is 50 MB."""


@record
class JobSetup:
    """What is fixed before the first step.

    ``contexts`` holds every context but ``env``, ``steps`` and ``job``, which change. ``shell`` and
    ``working_directory`` are ``defaults.run``, evaluated. ``environment`` is what programs find before the
    workflow's own ``env``. ``root`` is the repository on the host, for ``actions/checkout``, ``include`` the
    ignored files to send along. ``step_timeout`` (seconds) is for steps without a limit of their own, ``output`` bounds
    what they write, ``memory`` (bytes) is the VM's. ``debug`` is ``ACTIONS_STEP_DEBUG``. ``visits`` lets people in.
    """

    job: Job
    vm_id: str
    workspace: str
    contexts: Mapping[str, Value]
    environment: Mapping[str, str]
    event: EventInfo
    root: Path
    masker: Masker
    shell: str | None = None
    working_directory: str | None = None
    include: tuple[str, ...] = ()
    step_timeout: float | None = None
    output: OutputLimit | None = None
    memory: int = 0
    debug: bool = False
    visits: Visits | None = None

    @property
    def github(self) -> dict[str, Value]:
        """The ``github`` context without what is a step's own."""
        github = self.contexts["github"]
        return dict(github) if isinstance(github, dict) else {}

    @property
    def runner(self) -> dict[str, Value]:
        """The ``runner`` context."""
        runner = self.contexts["runner"]
        return dict(runner) if isinstance(runner, dict) else {}


@record(frozen=False)
class JobState:
    """What steps change.

    ``env`` is the workflow's and the job's, and what steps wrote to GITHUB_ENV; ``path`` what they wrote to
    GITHUB_PATH, the latest last. ``status`` is the job's so far. ``untouched``: no program has run in the job
    yet. ``unprepared``: a set-up script did not succeed, so that no step may run. ``checkouts`` holds the folders that
    were checked out, ``sent`` for each of those what was sent there (file names and marks); ``None`` where nobody will
    ask. ``lost`` is set when the guest is gone.
    """

    env: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    steps: dict[str, Value] = field(default_factory=dict)
    status: Conclusion = "success"
    untouched: bool = True
    unprepared: bool = False
    bash_is_missing: bool = False
    checkouts: set[str] = field(default_factory=set)
    sent: dict[str, dict[str, str]] | None = None
    lost: GuestError | None = None
    left: int = MAX_VALUES

    def contexts(self, setup: JobSetup, step_env: Mapping[str, str] | None = None) -> dict[str, Value]:
        """Return all contexts as they are now."""
        return {
            **setup.contexts,
            "env": env_context({**self.env, **(step_env or {})}),
            "job": {"status": self.status},
            "steps": self.steps,
        }

    def assign(self, assign: Assign, outputs: dict[str, str]) -> Iterator[Issue]:
        """Take a value that a step set; yields what is wrong with it. ``outputs`` are the step's."""
        self.left -= len(assign.name) + len(assign.value)
        if self.left < 0:
            limit = f"A job can set {MAX_VALUES >> 20} MiB of outputs, variables and states, no more."
            yield from command_failed(f"command that sets '{assign.name[:100]}'", limit)
            return
        match assign.kind:
            case "output":
                outputs[assign.name] = assign.value
            case "env":
                self.env[assign.name] = assign.value
            case "path":
                self.path = [path for path in self.path if path != assign.value] + [assign.value]
            case "state":
                pass  # only an action's later stages could read it

    def remember(
        self, step_id: str, outputs: Mapping[str, str], outcome: Conclusion, conclusion: Conclusion
    ) -> None:
        """Note a finished step: in the ``steps`` context if it has an id, and in the job's status."""
        if step_id:
            self.steps[step_id] = {"outputs": dict(outputs), "outcome": outcome, "conclusion": conclusion}
        if conclusion == "failure" and self.status == "success":
            self.status = "failure"
