"""What a run is asked to be."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from cloche.config import Settings
from cloche.execution.control import Timing
from cloche.execution.gitstate import EventInfo
from cloche.records import record
from cloche.vm.provider import VmSpec
from cloche.workflow.runson import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cloche.config import Command
    from cloche.execution.cuts import Mode

_DEFAULTS = Settings()


@record
class RunRequest:
    """How to carry a workflow out.

    ``root`` is the repository on the host. ``inputs`` are ``workflow_dispatch``'s, as typed. ``env`` is what every
    program finds in its environment, beneath the workflow's own ``env``. ``image_for`` names the image of the
    store that serves all of a job's ``runs-on`` labels, ``None`` if there is none: ``Settings.image_for``, unless
    somebody knows better. ``jobs`` are the jobs to run, with all they need; empty means all. ``matrix`` keeps
    only the legs whose values are these.
    ``skip_unsupported`` skips jobs that no image serves instead of refusing the run. ``include`` names ignored
    files and folders of the repository that ``actions/checkout`` sends all the same. ``spec`` is the shape of
    the VM; its image counts only where labels are known too late. Labels may ask for ``most`` (where it says nothing,
    for what ``spec`` has), unless the user settled that size: then its name, ``cpus`` or ``memory``, is in ``settled``.
    ``setups`` run before a job's first step, ``cleanups`` after its last one. With ``stop_on_failure`` the first job
    that fails cancels the others. ``step_timeout`` (seconds) is for steps without a limit of their own; ``time_limit``
    (seconds) and ``output_limit`` (bytes) are the whole run's; ``None`` is no limit. ``debug`` is
    ``ACTIONS_STEP_DEBUG``. ``snapshots`` says before which steps the run is kept as it is; jobs run one after the other
    then.
    """

    root: Path
    event: EventInfo = field(default_factory=EventInfo)
    secrets: Mapping[str, str] = field(default_factory=dict)
    vars: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    image_for: Callable[[Sequence[str]], str | None] = _DEFAULTS.image_for
    jobs: tuple[str, ...] = ()
    matrix: Mapping[str, str] = field(default_factory=dict)
    skip_unsupported: bool = False
    include: tuple[str, ...] = ()
    spec: VmSpec = field(default_factory=VmSpec)
    most: Size = field(default_factory=Size)
    settled: frozenset[str] = frozenset()
    setups: tuple[Command, ...] = ()
    cleanups: tuple[Command, ...] = ()
    stop_on_failure: bool = False
    step_timeout: float | None = None
    time_limit: float | None = None
    output_limit: int | None = None
    debug: bool = False
    snapshots: Mode = "never"
    run_number: int = 1
    run_attempt: int = 1
    timing: Timing = field(default_factory=Timing)
