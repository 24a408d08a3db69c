"""What GitHub has and Cloche does not carry out yet: refused by name and place, never ignored.

The tables below are the whole list of keys; the functions add what depends on a value: actions and the inputs
of ``actions/checkout``, and values given as one expression where Cloche needs to see the keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.templates import OPEN, is_insert, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingOf

    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node

WORKFLOW_KEYS = {
    "concurrency": "remove it; runs on your own machine do not cancel each other",
}
JOB_KEYS = {
    "cancel-timeout-minutes": "remove it; a cancelled job has GitHub's usual five minutes",
    "concurrency": "remove it; runs on your own machine do not cancel each other",
    "container": "choose an image for the job's `runs-on` label with `[runs-on]` in ~/.config/cloche/config.toml",
    "environment": "remove it, and pass what it holds with `-s NAME` and `--var NAME=VALUE`",
    "services": "start the service in a step: every job has its own network, so any port is free",
    "snapshot": "remove it; `cloche image import` makes an image of a root filesystem",
    "uses": "copy the jobs of the reusable workflow into this file",
}
STEP_KEYS = {
    "background": "put `&` after the command, or give the work a job of its own",
    "cancel": "end the process in a `run` step",
    "parallel": "write the steps one after the other, or as jobs of their own",
    "wait": "wait for the process in the step that starts it",
    "wait-all": "wait for the processes in the step that starts them",
}
CHECKOUT_ANY_VALUE = frozenset(
    {
        "clean",
        "fetch-depth",
        "fetch-tags",
        "path",
        "persist-credentials",
        "set-safe-directory",
        "show-progress",
    }
)
CHECKOUT_ONLY_FALSE = frozenset({"lfs", "submodules"})
CHECKOUT_REFUSED = frozenset(
    {
        "filter",
        "github-server-url",
        "ref",
        "repository",
        "sparse-checkout",
        "sparse-checkout-cone-mode",
        "ssh-key",
        "ssh-known-hosts",
        "ssh-strict",
        "ssh-user",
        "token",
    }
)

_CHECKOUT = re.compile(r"actions/checkout@[^@]+", re.IGNORECASE)
_CHECKOUT_HINT = "Cloche checks out the repository at hand as it is; fetch anything else in a `run` step"


def refuse_unsupported(root: Node, findings: Findings) -> None:
    """Note everything in a workflow file that Cloche does not carry out."""
    _Refusal(findings).workflow(root)


class _Refusal:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def workflow(self, root: Node) -> None:
        self._keys(root, WORKFLOW_KEYS)
        self._inserts(root)
        self._defaults(_at(root, "defaults"))
        for _, job in _entries(_at(root, "jobs")):
            self._job(job)

    def _refuse(self, what: str, node: Node, hint: str) -> None:
        self._findings.add(f"{what} is not carried out by Cloche yet", node.position, hint)

    def _keys(self, node: Node | None, table: MappingOf[str, str]) -> None:
        for key, _ in _entries(node):
            if key.text in table:
                self._refuse(f"`{key.text}`", key, table[key.text])

    def _inserts(self, node: Node) -> None:
        """Refuse ``${{ insert }}`` anywhere."""
        if isinstance(node, Sequence):
            for item in node.items:
                self._inserts(item)
        for key, value in _entries(node):
            if is_insert(key):
                self._refuse("`${{ insert }}`", key, "write the keys one by one")
            self._inserts(value)

    def _job(self, job: Node) -> None:
        self._keys(job, JOB_KEYS)
        self._defaults(_at(job, "defaults"))
        self._whole(_at(job, "strategy"), "`strategy`")
        self._expression_keys(_at(job, "strategy"), "`strategy`")
        for key, _ in _entries(_at(job, "runs-on")):
            if key.text == "group":
                self._refuse("`runs-on.group`", key, "name the labels of one of your images instead")
        steps = _at(job, "steps")
        for step in steps.items if isinstance(steps, Sequence) else ():
            self._step(step)

    def _step(self, step: Node) -> None:
        self._keys(step, STEP_KEYS)
        self._whole(_at(step, "with"), "`with`")
        uses = _at(step, "uses")
        if isinstance(uses, Scalar) and uses.text:
            self._action(uses, _at(step, "with"))

    def _defaults(self, defaults: Node | None) -> None:
        run = _at(defaults, "run")
        self._whole(run, "`defaults.run`")
        self._expression_keys(run, "`defaults.run`")

    def _whole(self, node: Node | None, what: str) -> None:
        if isinstance(node, Scalar) and OPEN in node.text:
            self._refuse(
                f"{what} given as one expression", node, "write its keys out; their values may be expressions"
            )

    def _expression_keys(self, node: Node | None, what: str) -> None:
        for key, _ in _entries(node):
            if OPEN in key.text and not is_insert(key):
                self._refuse(f"An expression as a key of {what}", key, "write the key out")

    def _action(self, uses: Scalar, inputs: Node | None) -> None:
        text = plain_text(uses)
        if not _CHECKOUT.fullmatch(text):
            hint = "`actions/checkout` is built in; do what other actions do in `run` steps, or in the image"
            self._refuse(f"The action `{text}`", uses, hint)
            return
        for key, value in _entries(inputs):
            self._checkout_input(key, value)

    def _checkout_input(self, key: Scalar, value: Node) -> None:
        name = plain_text(key).lower()
        text = plain_text(value) if isinstance(value, Scalar) else None
        if name in CHECKOUT_ANY_VALUE or text == "":
            return
        if name in CHECKOUT_ONLY_FALSE:
            if text is None or text.lower() != "false":
                hint = f"{_CHECKOUT_HINT}, or set `{name}: false`"
                self._refuse(f"`{name}` of actions/checkout, other than false,", value, hint)
        elif name in CHECKOUT_REFUSED:
            self._refuse(f"`{name}` of actions/checkout", key, _CHECKOUT_HINT)
        else:
            known = CHECKOUT_ANY_VALUE | CHECKOUT_ONLY_FALSE
            message = f"actions/checkout has no input `{name}`"
            self._findings.add_unknown(message, key.position, name, sorted(known))


def _entries(node: Node | None) -> Iterator[tuple[Scalar, Node]]:
    return iter(node) if isinstance(node, Mapping) else iter(())


def _at(node: Node | None, key: str) -> Node | None:
    return node.get(key) if isinstance(node, Mapping) else None
