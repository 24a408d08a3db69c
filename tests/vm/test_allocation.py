"""One VM for each run, and no other: the mission's four tests, through the Python API and the command line."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cloche.config import data_dir
from cloche.errors import SessionLimitReached
from cloche.events import SessionCreated, SessionReleased, StepFinished, StepOutput
from cloche.execution.executor import WorkflowExecutor
from cloche.execution.request import RunRequest
from cloche.image.store import ImageStore
from cloche.pool import VmPool
from cloche.session import SessionManager, SessionRegistry
from cloche.vm.fake import FakeProvider
from cloche.vm.qemu.provider import QemuProvider
from cloche.vm.sandbox.provider import SandboxProvider
from cloche.workflow.parse import parse_workflow
from tests.e2e.gate import Gate
from tests.e2e.place import Ended, Place, lacking, one_job, settled, traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloche.events import Event
    from cloche.execution.results import RunResult
    from cloche.vm.provider import Allocation, Vm, VmProvider, VmSpec

BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
READ_BOOT_ID = "- run: cat /proc/sys/kernel/random/boot_id\n"


@pytest.fixture(
    params=[
        "fake",
        pytest.param("sandbox", marks=pytest.mark.sandbox),
        pytest.param("qemu", marks=pytest.mark.vm),
    ]
)
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if reason := lacking(name):
        pytest.skip(reason)
    return name


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as made:
        yield made


def leaving_marks(name: str, steps: int, first: str = "") -> str:
    """A workflow whose steps each leave a file, list all such files they see, and read the boot id."""
    step = f"touch $HOME/mark-{name} /tmp/mark-{name}; ls $HOME/mark-* /tmp/mark-*; cat /proc/sys/kernel/random/boot_id"
    lines = [f"- run: {step}"] * steps
    if first:
        lines[0] = f"- run: {first}; {step}"
    return one_job("\n".join(lines), name=name)


# --- the Python API


class Counted:
    """A provider that notes what it was asked for."""

    def __init__(self, provider: VmProvider) -> None:
        self._provider = provider
        self.name = provider.name
        self.allocated: list[str] = []
        self.released: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        return self._provider.notes

    async def allocate(self, spec: VmSpec) -> Allocation:
        allocation = await self._provider.allocate(spec)
        self.allocated.append(allocation.vm.id)
        return allocation

    async def release(self, vm: Vm) -> None:
        self.released.append(vm.id)
        await self._provider.release(vm)

    async def reset(self, vm: Vm) -> None:
        await self._provider.reset(vm)

    async def close(self) -> None:
        await self._provider.close()


class Run(NamedTuple):
    """What came of a run."""

    result: RunResult
    events: list[Event]

    @property
    def steps(self) -> list[StepFinished]:
        return [event for event in self.events if isinstance(event, StepFinished)]

    @property
    def session(self) -> SessionCreated:
        (created,) = (event for event in self.events if isinstance(event, SessionCreated))
        return created

    @property
    def output(self) -> list[str]:
        return "".join(event.text for event in self.events if isinstance(event, StepOutput)).splitlines()

    @property
    def boot_ids(self) -> list[str]:
        """Those that the steps themselves read."""
        return [line for line in self.output if BOOT_ID.fullmatch(line)]


class House:
    """A session manager of the real parts, over one provider, with its own folders."""

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self.folder = folder
        images, vms = ImageStore(data_dir()), folder / "vms"
        made: dict[str, VmProvider] = {"fake": FakeProvider(programs={"gate": Gate.program})}
        if name == "sandbox":
            made[name] = SandboxProvider(images, vms)
        if name == "qemu":
            made[name] = QemuProvider(images, data_dir(), vms)
        self.provider = Counted(made[name])
        self.manager = SessionManager(VmPool(self.provider), SessionRegistry(folder / "sessions"), limit)

    async def run(self, text: str) -> Run:
        events: list[Event] = []
        executor = WorkflowExecutor(self.manager, [events.append])
        workflow = parse_workflow(text, "test.yml")
        return Run(await executor.execute_workflow(workflow, RunRequest(root=self.folder)), events)

    def left(self) -> list[str]:
        files = [str(path) for name in ("vms", "sessions") for path in (self.folder / name).glob("*")]
        return [*files, *traces(str(self.folder))]


@pytest.fixture
def house(tmp_path: Path, provider: str) -> Iterator[House]:
    made = House(tmp_path / "house", provider, limit=3)
    made.folder.mkdir()
    yield made
    assert settled(made.left, within=2) == []


async def test_t1_five_steps_in_one_vm(house: House) -> None:
    async with house.manager:
        run = await house.run(one_job(READ_BOOT_ID * 5))

    assert run.result.conclusion == "success"
    assert house.provider.allocated == [run.session.vm_id] == house.provider.released
    assert [step.vm_id for step in run.steps] == [run.session.vm_id] * 5
    assert [step.boot_id for step in run.steps] == [run.session.boot_id] * 5 == run.boot_ids
    assert house.manager.stats().created == 1
    kinds = [event.type for event in run.events]
    assert kinds.index("session.created") < kinds.index("job.started") < kinds.index("step.started")


async def test_t2_three_runs_at_once_in_three_vms(house: House, gate: Gate, provider: str) -> None:
    texts = [leaving_marks(f"w{n}", n, gate.script(provider)) for n in (5, 3, 7)]
    async with house.manager:
        runs = [asyncio.create_task(house.run(text)) for text in texts]
        await asyncio.to_thread(gate.wait_for, 3)
        assert house.manager.stats().active == 3
        gate.open()
        ended = await asyncio.gather(*runs)

    assert {run.session.vm_id for run in ended} == set(house.provider.allocated)
    assert len(set(house.provider.allocated)) == len({run.session.boot_id for run in ended}) == 3
    for run, count in zip(ended, (5, 3, 7), strict=True):
        assert run.result.conclusion == "success"
        assert {step.vm_id for step in run.steps} == {run.session.vm_id}
        assert [step.boot_id for step in run.steps] == [run.session.boot_id] * count == run.boot_ids
        marks = {line.rpartition("/")[2] for line in run.output if "mark-" in line}
        assert marks == {f"mark-w{count}"}


async def test_t3_release_and_another_allocation(house: House) -> None:
    async with house.manager:
        first = await house.run(leaving_marks("first", 1))
        assert house.provider.released == [first.session.vm_id]
        assert settled(house.left, within=2) == []
        second = await house.run(leaving_marks("second", 1))

    assert first.session.boot_id != second.session.boot_id
    assert not any("mark-first" in line for line in second.output)
    assert house.provider.allocated == house.provider.released
    assert isinstance(second.events[-2], SessionReleased)


async def test_t4_a_limit_of_two(tmp_path: Path, provider: str, gate: Gate) -> None:
    house = House(tmp_path, provider, limit=2)
    texts = [leaving_marks(f"w{n}", n, gate.script(provider)) for n in (2, 3)]
    async with house.manager:
        runs = [asyncio.create_task(house.run(text)) for text in texts]
        await asyncio.to_thread(gate.wait_for, 2)
        with pytest.raises(SessionLimitReached) as refused:
            await house.run(one_job("- run: echo never"))
        assert len(house.provider.allocated) == 2
        gate.open()
        ended = await asyncio.gather(*runs)
        assert [run.result.conclusion for run in ended] == ["success", "success"]
        again = await house.run(one_job("- run: echo now"))

    message = str(refused.value)
    assert "the limit of 2 concurrent sessions is reached" in message
    assert all(run.session.session_id in message for run in ended)
    assert again.output == ["now"]
    assert house.manager.stats().refused == 1


# --- the command line


@pytest.fixture
def place(tmp_path: Path, provider: str) -> Iterator[Place]:
    made = Place(tmp_path / "place", provider)
    yield made
    made.assert_clean()


def test_the_command_lines_five_steps_in_one_vm(place: Place) -> None:
    place.steps(READ_BOOT_ID * 5)
    ended = place.run("run", "--output", "jsonl")

    assert ended.code == 0
    session = ended.one("session.created")
    steps = ended.of("step.finished")
    assert [step["vm_id"] for step in steps] == [session["vm_id"]] * 5
    assert [step["boot_id"] for step in steps] == [session["boot_id"]] * 5 == ended.output().split()
    logged = [line.partition(" INFO ")[2] for line in ended.stderr.splitlines() if " INFO " in line]
    assert re.fullmatch(
        rf"Allocated VM {session['vm_id']} in [\d.]+ m?s for session {session['session_id']}", logged[0]
    )
    assert logged[1] == f"Starting workflow 'Test' for session {session['session_id']}"
    assert [line.partition(":")[0] for line in logged[2:7]] == [f"Executing step {n}/5" for n in range(1, 6)]
    assert re.fullmatch(r"Workflow 'Test' completed successfully in \d+ms", logged[7])
    assert logged[8:] == [f"Released session {session['session_id']} with VM {session['vm_id']}"]
    assert ended.one("session.released")["vm_id"] == session["vm_id"]


def test_the_command_lines_three_workflows_at_once(place: Place) -> None:
    for count in (5, 3, 7):
        place.workflow(leaving_marks(f"w{count}", count), f"w{count}.yml")
    ended = place.run("run", "--output", "jsonl")

    assert ended.code == 0
    assert len({session["vm_id"] for session in ended.of("session.created")}) == 3
    assert len({session["boot_id"] for session in ended.of("session.created")}) == 3
    for run in ended.of("run.started"):
        steps = ended.of("step.finished", run_id=run["run_id"])
        output = ended.output(run_id=run["run_id"])
        assert run["workflow"] == f"w{len(steps)}"
        assert len({(step["vm_id"], step["boot_id"]) for step in steps}) == 1
        assert set(re.findall("mark-w.", output)) == {f"mark-w{len(steps)}"}


@pytest.mark.parametrize(
    "provider",
    [pytest.param("sandbox", marks=pytest.mark.sandbox), pytest.param("qemu", marks=pytest.mark.vm)],
    indirect=True,
)
def test_the_command_lines_third_session_is_refused(place: Place, gate: Gate) -> None:
    limit = {"CLOCHE_SESSION_MAX_CONCURRENT": "2"}
    place.workflow(leaving_marks("held", 2, gate.script(place.provider)))
    with place.events(env=limit) as one, place.events(env=limit) as other:
        gate.wait_for(2)
        refused = place.run("run", "--output", "jsonl", env=limit)
        gate.open()
        ended = [one.end(), other.end()]

    assert refused.code == 3
    assert not refused.of("session.created")
    assert "the limit of 2 concurrent sessions is reached" in refused.stderr
    for run in ended:
        assert run.one("session.created")["session_id"] in refused.stderr
        assert (run.code, list(run.steps.values())) == (0, ["success", "success"])
    assert_again(place.run("run", "--output", "jsonl", "--vm", "fake"))


def assert_again(ended: Ended) -> None:
    """The places are free again: this one got one, though a fake knows no gate."""
    assert ended.of("session.created")
