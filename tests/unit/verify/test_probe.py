"""What a guest says is read for what it is worth, whatever it says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.verify.observations import Said
from cloche.verify.probe import (
    MAX_OUTPUT,
    StepPlan,
    WorkflowPlan,
    nonces_in,
    read_output,
    workflow_text,
)
from cloche.workflow.parse import parse_workflow

if TYPE_CHECKING:
    from cloche.verify.probe import Duty

HONEST = """\
Run something
verify: boot_id=0b35692f-8408-5bea-8fff-51b51630326d
verify: hostname=vm-2d4e988e57d2
verify: uptime=12.50
verify: clock=1700000000.123456
verify: kernel_mark=cloche-verify-aa
verify: chain=one
verify: chain=two
verify: path=/tmp/cloche-verify-aa
verify: alive=yes
verify: did=mount
verify: did=clock
verify: found=listener
"""


def test_an_honest_step() -> None:
    assert read_output(HONEST) == Said(
        boot_id="0b35692f-8408-5bea-8fff-51b51630326d",
        hostname="vm-2d4e988e57d2",
        uptime=12.5,
        clock=1700000000.123456,
        chain=("one", "two"),
        alive=True,
        kernel_mark="cloche-verify-aa",
        did=("mount", "clock"),
        found=("listener",),
    )


@pytest.mark.parametrize(
    ("said", "field", "read"),
    [
        ("", "boot_id", None),
        ("verify: boot_id=", "boot_id", None),
        ("verify: boot_id=a\nverify: boot_id=b", "boot_id", None),
        ("verify: boot_id=a\nverify: boot_id=a", "boot_id", None),
        ("  verify: boot_id=a", "boot_id", None),
        ("verify: uptime=soon", "uptime", None),
        ("verify: uptime=" + "9" * 5000, "uptime", None),
        ("verify: uptime=nan", "uptime", None),
        ("verify: uptime=inf", "uptime", None),
        ("verify: uptime=-1", "uptime", None),
        ("verify: alive=maybe", "alive", None),
        ("verify: alive=no", "alive", False),
        ("verify: hostname=" + "x" * 5000, "hostname", "x" * 200),
        ("x" * MAX_OUTPUT + "\nverify: hostname=late", "hostname", None),
    ],
)
def test_what_is_not_said_clearly_is_not_said(said: str, field: str, read: object) -> None:
    assert getattr(read_output(said), field) == read


@given(st.text() | st.lists(st.sampled_from([*HONEST.splitlines(), "", "verify: x=y"])).map("\n".join))
def test_anything_may_be_said(output: str) -> None:
    said = read_output(output)
    for name in ("uptime", "clock"):
        assert getattr(said, name) is None or isinstance(getattr(said, name), float)
    texts = [
        said.boot_id or "",
        said.hostname or "",
        said.kernel_mark or "",
        *said.chain,
        *said.did,
        *said.found,
    ]
    assert all("\n" not in text and len(text) <= 200 for text in texts)


def test_nonces_are_found_wherever_they_stand() -> None:
    one, two, three = (WorkflowPlan("x", ()).nonce for _ in range(3))
    assert nonces_in(f"/tmp/cloche-verify-{one}-pid x{two}", [one, two, three]) == (one, two)


def plan() -> WorkflowPlan:
    duties: tuple[Duty, ...] = ("look", "soil", "search", "look")
    return WorkflowPlan("T9", (*(StepPlan(duty) for duty in duties), StepPlan("hold", 2.5)))


@pytest.mark.parametrize("own_kernel", [True, False])
@pytest.mark.parametrize("real", [True, False])
def test_the_workflow_is_one_that_cloche_reads(own_kernel: bool, real: bool) -> None:  # noqa: FBT001 - parameters of a test
    workflow = parse_workflow(workflow_text(plan(), own_kernel=own_kernel, real=real), "t9.yml")
    (job,) = workflow.jobs.values()
    assert len(job.steps) == 5


def test_only_guests_with_a_kernel_of_their_own_have_it_touched() -> None:
    shared, own = (workflow_text(plan(), own_kernel=own, real=True) for own in (False, True))
    for word in ("tee /proc/sys", "date -s"):
        assert word not in shared
        assert word in own
    unreal = workflow_text(plan(), own_kernel=False, real=False)
    assert "mount" not in unreal


def test_each_step_is_given_its_own_word_and_each_workflow_its_own_nonce() -> None:
    first, second = plan(), plan()
    text = workflow_text(first, own_kernel=True, real=True)
    words = [step.challenge for step in first.steps]
    assert len(set(words)) == 5
    assert all(text.count(word) == 1 for word in words)
    assert text.count(first.nonce) == 5
    assert second.nonce not in text
    assert dataclasses.replace(first, name="T8").nonce == first.nonce
