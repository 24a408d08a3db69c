"""A workflow as Cloche understands it: read, checked, with positions, expressions not yet evaluated.

Whatever may hold ``${{ }}`` stays a node of the file; the execution room evaluates it when GitHub would.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingOf

    from cloche.errors import Position
    from cloche.workflow.nodes import Mapping, Node, Scalar


@record
class RunDefaults:
    """``defaults.run``: what ``run`` steps use when they say nothing."""

    shell: Scalar | None = None
    working_directory: Scalar | None = None


@record
class Condition:
    """An ``if:``: the expression's text without ``${{ }}``, ``success()`` added where GitHub implies it."""

    expression: str
    position: Position


@record
class Step:
    """One step: ``run`` or ``uses``, never both. ``index`` counts from 1 in its job."""

    index: int
    position: Position
    id: str = ""
    name: Scalar | None = None
    condition: Condition | None = None
    run: Scalar | None = None
    uses: Scalar | None = None
    with_: Mapping | None = None
    env: Node | None = None
    shell: Scalar | None = None
    working_directory: Scalar | None = None
    continue_on_error: Scalar | None = None
    timeout_minutes: Scalar | None = None


@record
class Strategy:
    """``strategy``. ``matrix`` is a mapping (vectors, ``include``, ``exclude``) or one expression."""

    matrix: Node | None = None
    fail_fast: Scalar | None = None
    max_parallel: Scalar | None = None


@record
class Job:
    """One job. ``condition`` always holds the implied ``success()`` where none was written.

    A job with ``uses`` calls a reusable workflow: it has no steps and its ``runs_on`` is an empty sequence.
    ``with_`` and ``secrets`` (a mapping, or the scalar ``inherit``) are what it gives.
    """

    id: str
    position: Position
    condition: Condition
    runs_on: Node
    steps: tuple[Step, ...]
    name: Scalar | None = None
    needs: tuple[str, ...] = ()
    env: Node | None = None
    defaults: RunDefaults = field(default_factory=RunDefaults)
    outputs: Mapping | None = None
    strategy: Strategy | None = None
    continue_on_error: Scalar | None = None
    timeout_minutes: Scalar | None = None
    uses: Scalar | None = None
    with_: Mapping | None = None
    secrets: Node | None = None


@record
class Trigger:
    """One event of ``on:`` with its filters. Empty tuples are filters not written.

    ``inputs`` is the mapping of input definitions of ``workflow_dispatch`` or ``workflow_call``, if any;
    ``secrets`` and ``outputs`` are those of ``workflow_call``.
    """

    event: str
    position: Position
    types: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    branches_ignore: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tags_ignore: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    paths_ignore: tuple[str, ...] = ()
    inputs: Mapping | None = None
    secrets: Mapping | None = None
    outputs: Mapping | None = None


@record
class Workflow:
    """A workflow file, read and checked. ``path`` is as GitHub shows it, relative to the repository."""

    path: str
    triggers: MappingOf[str, Trigger]
    jobs: MappingOf[str, Job]
    name: str | None = None
    run_name: Scalar | None = None
    env: Node | None = None
    defaults: RunDefaults = field(default_factory=RunDefaults)

    @property
    def display_name(self) -> str:
        """The workflow's name, or its path when it has none, as GitHub shows it."""
        return self.name or self.path
