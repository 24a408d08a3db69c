"""How large the VM is that labels of `runs-on` ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import WorkflowError
from cloche.execution.request import RunRequest
from cloche.execution.sizes import asks
from cloche.session import SessionContext
from cloche.vm.provider import GIB, MIB, VmSpec
from cloche.workflow.parse import parse_workflow
from cloche.workflow.runson import Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.execution.conftest import Lab

ROOMY = Size(64, 64 * GIB)


def jobs(*labels: str) -> str:
    """A workflow with a job for each ``runs-on``, one after the other."""
    steps = "steps: [{run: echo fine}]"
    lines = [f"  job{n}: {{runs-on: {label}, {steps}}}\n" for n, label in enumerate(labels, 1)]
    return "on: push\njobs:\n" + "".join(lines)


async def shape(make_lab: Callable[..., Lab], text: str, **request: Any) -> tuple[int, int]:
    """The vCPUs and the memory of the VM that a workflow got."""
    asked: list[VmSpec] = []

    async def note(spec: VmSpec, _number: int) -> None:
        asked.append(spec)

    lab = make_lab(on_allocate=note)
    async with lab.manager:
        result = await lab.run(text, **request)
    assert result.conclusion == "success"
    (spec,) = asked
    return spec.cpus, spec.memory


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("ubuntu-latest",), (2, 2 * GIB)),
        (("cloche-4cpu-8gb",), (4, 8 * GIB)),
        (("[ubuntu-latest, cloche-4cpu]",), (4, 2 * GIB)),
        (("cloche-4cpu-1gb", "cloche-1cpu-8gb"), (4, 8 * GIB)),
        (("cloche-1cpu-1gb",), (1, GIB)),
        (("cloche-1cpu-1gb", "ubuntu-latest"), (2, 2 * GIB)),
        (("[cloche-3cpu, cloche-5cpu, cloche-4cpu]",), (5, 2 * GIB)),
        (("{labels: cloche-16gb}",), (2, 16 * GIB)),
    ],
)
async def test_the_vm_is_as_large_as_its_largest_job_asks(
    make_lab: Callable[..., Lab], labels: tuple[str, ...], expected: tuple[int, int]
) -> None:
    assert await shape(make_lab, jobs(*labels), most=ROOMY) == expected


async def test_a_matrix_may_choose_sizes(make_lab: Callable[..., Lab]) -> None:
    text = """
    on: push
    jobs:
      job:
        strategy: {matrix: {cpu: [1, 6, 3]}}
        runs-on: cloche-${{ matrix.cpu }}cpu
        steps: [{run: echo fine}]
    """
    assert await shape(make_lab, text, most=ROOMY) == (6, 2 * GIB)
    assert await shape(make_lab, text, most=ROOMY, matrix={"cpu": "3"}) == (3, 2 * GIB)


@pytest.mark.parametrize(
    ("label", "place", "message"),
    [
        ("cloche-4cpu", (3, 19), "Job 'job1' asks for 4 vCPUs ('cloche-4cpu'); this machine allows 3 vCPUs"),
        ("[self-hosted, cloche-8gb]", (3, 33), "asks for 8 GiB of memory ('cloche-8gb'); this machine allows 2 GiB"),
        ("{labels: [cloche-9cpu]}", (3, 29), "asks for 9 vCPUs"),
    ],
)  # fmt: skip
async def test_more_than_is_allowed_is_refused_up_front_by_place(
    lab: Lab, label: str, place: tuple[int, int], message: str
) -> None:
    with pytest.raises(WorkflowError) as caught:
        await lab.run(jobs(label), most=Size(3, None))
    (found,) = caught.value.diagnostics
    assert message in found.message
    assert (found.position.line, found.position.column) == place
    assert "[limits]" in (found.hint or "")
    assert lab.events == []


async def test_a_label_that_means_a_size_but_is_none_is_told_how_to_be_one(lab: Lab) -> None:
    with pytest.raises(WorkflowError) as caught:
        await lab.run(jobs("cloche-4cpus"))
    assert "no image serves the label 'cloche-4cpus'" in caught.value.diagnostics[0].message
    assert "cloche-4cpu-8gb" in (caught.value.diagnostics[0].hint or "")


async def test_a_size_that_the_user_settled_goes_before_a_label(make_lab: Callable[..., Lab]) -> None:
    told: list[str] = []
    lab = make_lab()
    async with lab.manager:
        result = await lab.run(jobs("cloche-9cpu-1gb"), spec=VmSpec(cpus=1), settled=frozenset({"cpus"}))
        told = lab.messages("notice")
    assert result.conclusion == "success"
    assert told == ["Job 'job1' asks for 9 vCPUs ('cloche-9cpu-1gb'); --cpus gives 1 vCPU"]


async def test_in_a_session_of_the_callers_own_its_vm_is_what_may_be_asked_for(lab: Lab) -> None:
    request = RunRequest(root=lab.root, image_for=lambda _labels: "default")
    context = SessionContext("mine", VmSpec(cpus=6))
    async with lab.manager.session(context) as session:
        six = parse_workflow(jobs("cloche-6cpu"), "test.yml")
        result = await lab.executor.execute_workflow_in_session(session, six, request)
        assert result.conclusion == "success"
        seven = parse_workflow(jobs("cloche-7cpu"), "test.yml")
        with pytest.raises(WorkflowError, match="allows 6 vCPUs"):
            await lab.executor.execute_workflow_in_session(session, seven, request)


RUN_TIME = """
on: push
jobs:
  first:
    runs-on: ubuntu-latest
    outputs: {label: "${{ steps.label.outputs.label }}"}
    steps: [{id: label, run: "echo label=LABEL >> $GITHUB_OUTPUT"}]
  second:
    needs: first
    runs-on: ${{ needs.first.outputs.label }}
    steps: [{run: echo fine}]
"""


@pytest.mark.parametrize(
    ("label", "wrong"),
    [
        ("cloche-2cpu-2gb", None),
        ("cloche-3cpu", "Job 'second': it asks for 3 vCPUs ('cloche-3cpu'), the VM has 2 vCPUs"),
        (
            "cloche-3gb",
            "Job 'second': it asks for 3 GiB of memory ('cloche-3gb'), the VM has 2 GiB of memory",
        ),
    ],
)
async def test_a_label_known_late_fails_a_job_that_asks_for_more_than_the_vm_has(
    lab: Lab, label: str, wrong: str | None
) -> None:
    result = await lab.run(RUN_TIME.replace("LABEL", label), most=ROOMY)
    assert result.conclusion == ("failure" if wrong else "success")
    assert lab.messages() == ([wrong] if wrong else [])


async def test_a_label_known_late_gives_way_to_what_the_user_settled(lab: Lab) -> None:
    request = {"spec": VmSpec(cpus=1, memory=512 * MIB), "settled": frozenset({"cpus", "memory"})}
    assert (await lab.run(RUN_TIME.replace("LABEL", "cloche-3cpu-3gb"), **request)).conclusion == "success"


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), max_size=6))
def test_of_several_labels_the_largest_counts(sizes: list[tuple[int, int]]) -> None:
    found = {ask.what: ask.amount for ask in asks([f"cloche-{cpus}cpu-{gb}gb" for cpus, gb in sizes])}
    largest = {"cpus": max(c for c, _ in sizes), "memory": max(g for _, g in sizes) * GIB} if sizes else {}
    assert found == largest
