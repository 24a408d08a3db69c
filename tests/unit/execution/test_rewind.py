"""Runs that go on from a cut of another one come to what a run from the beginning comes to."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from cloche.errors import GuestError, GuestLost, ProviderError
from cloche.events import Event, JobStarted, Notice, RunRewound, SnapshotTaken, StepEvent, StepStarted
from cloche.execution.checkpoint import Checkpoint
from cloche.execution.cuts import Rewind
from cloche.execution.executor import WorkflowExecutor
from cloche.execution.gitstate import EventInfo
from cloche.execution.request import RunRequest
from cloche.pool import VmPool
from cloche.session import SessionManager, SessionRegistry
from cloche.store.runs import RunStore
from cloche.vm.fake import FakeProvider
from cloche.vm.snapshot import VmSnapshot
from cloche.workflow.parse import parse_workflow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cloche.execution.results import RunResult
    from cloche.execution.resume import Side
    from cloche.session import Session
    from cloche.store.runs import Cut, KeptRun

_DIFFERS = frozenset(
    {"run_id", "at", "duration_ms", "session_id", "vm_id", "boot_id", "usage", "size", "paused_ms"}
)


class Lab:
    """A place to run workflows in and to go on with them: the fake provider, and a store of runs."""

    def __init__(self, folder: Path) -> None:
        self.provider = FakeProvider()
        self.manager = SessionManager(VmPool(self.provider), SessionRegistry(folder / "sessions"))
        self.store = RunStore(folder / "runs", keep=3600.0, size=1 << 30)
        self.root = folder / "repository"
        self.root.mkdir()
        self.events: list[Event] = []
        self.hook: Callable[[Event], None] = lambda _event: None

    async def run(self, text: str, **request: Any) -> RunResult:
        """Carry a workflow out from its beginning, keeping cuts."""
        request = {"root": self.root, "snapshots": "on-failure", **request}
        return await self._execute(text, RunRequest(**request), None)

    async def rewind(self, cut: Cut, text: str, side: Side | None = None) -> RunResult:
        """Go on from a cut with what is now the workflow."""
        checkpoint = Checkpoint.from_json(cut.checkpoint())
        request = checkpoint.make_request(lambda _labels: "default")
        return await self._execute(text, request, Rewind(checkpoint, VmSnapshot.load(cut.folder), side))

    async def _execute(self, text: str, request: RunRequest, rewind: Rewind | None) -> RunResult:
        self.events = []
        self.executor = WorkflowExecutor(self.manager, [self.events.append, self.hook], store=self.store)
        workflow = parse_workflow(textwrap.dedent(text), ".github/workflows/test.yml")
        return await self.executor.execute_workflow(workflow, request, rewind)

    @property
    def kept(self) -> KeptRun:
        """The one run that is kept."""
        (run,) = self.store.runs()
        return run

    def said(self, kind: type[Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    def output(self) -> str:
        """What steps wrote."""
        return "".join(getattr(event, "text", "") for event in self.events)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    async with made.manager:
        yield made
        assert made.manager.stats().active == 0


def steps(*scripts: str) -> str:
    """A workflow of one job with these steps."""
    lines = "".join(f"      - run: {script}\n" for script in scripts)
    return f"on: push\njobs:\n  job:\n    runs-on: ubuntu-latest\n    steps:\n{lines}"


def plain(event: Event) -> dict[str, Any]:
    """An event without what differs from run to run."""
    return {name: value for name, value in event.to_json().items() if name not in _DIFFERS}


def after(events: list[Event], cut: Cut) -> list[dict[str, Any]]:
    """What was told from a cut on."""
    place = (cut.facts.job, cut.facts.leg, cut.facts.step)
    at = next(
        index
        for index, event in enumerate(events)
        if isinstance(event, SnapshotTaken) and (event.job, event.leg, event.step) == place
    )
    return [plain(event) for event in events[at:]]


MUCH = """
    name: Much
    on: push
    env: {WHOLE: run}
    jobs:
      first:
        runs-on: ubuntu-latest
        outputs:
          made: ${{ steps.make.outputs.made }}
        steps:
          - id: make
            run: |
              echo "made=in first" >> "$GITHUB_OUTPUT"
              echo "SET=by a step" >> "$GITHUB_ENV"
              echo /opt/more >> "$GITHUB_PATH"
              echo "::add-mask::hidden words"
          - run: echo "$SET, $PATH, $WHOLE, hidden words, ${{ secrets.TOKEN }} ${{ github.run_id > 0 }}"
          - run: echo skipped
            if: false
      skipped:
        runs-on: ubuntu-latest
        if: false
        steps:
          - run: echo never
      legs:
        needs: [first, skipped]
        if: always()
        runs-on: ubuntu-latest
        strategy:
          fail-fast: false
          matrix:
            n: [1, 2, 3]
        steps:
          - id: own
            run: |
              echo "leg=${{ matrix.n }}" >> "$GITHUB_OUTPUT"
              echo "${{ matrix.n }}" > kept
          - run: echo "leg ${{ steps.own.outputs.leg }} $(cat kept) ${{ needs.first.outputs.made }}"
          - run: exit 3
            if: matrix.n == 2
            continue-on-error: true
      last:
        needs: legs
        if: always()
        runs-on: ubuntu-latest
        steps:
          - run: echo "last ${{ needs.legs.result }}"
          - run: echo hidden words; FAIL
          - run: echo the end
            if: always()
"""


async def test_from_every_cut_on_a_run_is_what_it_would_have_been(lab: Lab) -> None:
    fixed = MUCH.replace("FAIL", "true")
    request = {"secrets": {"TOKEN": "sesame"}, "snapshots": "each-step"}
    assert (await lab.run(fixed, **request)).conclusion == "success"
    whole = lab.events
    assert lab.store.runs() == [], "a run that did well leaves nothing"
    assert (await lab.run(MUCH.replace("FAIL", "exit 1"), **request)).conclusion == "failure"
    kept = lab.kept
    assert len(kept.cuts) == len([e for e in lab.events if isinstance(e, SnapshotTaken)]) == 12
    assert kept.failed_cut.facts.shown == "last/2", "what was forgiven did not fail"
    for cut in kept.cuts[:11]:  # the last was made after the failure
        result = await lab.rewind(cut, fixed)
        assert result.conclusion == "success"
        assert after(lab.events, cut) == after(whole, cut), cut.facts.shown
        (said,) = lab.said(RunRewound)
        assert (said.of, said.job, said.step) == (kept.facts.run_id, cut.facts.job, cut.facts.step)
        assert lab.kept == kept, "cuts are never written to, and a run that did well leaves none"


async def test_results_of_before_count(lab: Lab) -> None:
    await lab.run(MUCH.replace("FAIL", "exit 1"), secrets={"TOKEN": "sesame"})
    result = await lab.rewind(lab.kept.cuts[-1], MUCH.replace("FAIL", "true"))
    ended = [(job.job, job.leg, job.conclusion) for job in result.jobs]
    assert sorted(ended, key=str) == [
        ("first", None, "success"), ("last", None, "success"), ("legs", "1", "success"),
        ("legs", "2", "success"), ("legs", "3", "success"), ("skipped", None, "skipped"),
    ]  # fmt: skip
    (said,) = lab.said(RunRewound)
    assert said.done == {
        "skipped": "skipped", "first": "success", "legs (1)": "success", "legs (2)": "success",
        "legs (3)": "success",
    }  # fmt: skip


async def test_steps_before_the_cut_do_not_run_again_and_what_they_made_is_there(lab: Lab) -> None:
    await lab.run(steps("echo once; echo made > file", "cat file; exit 1", "echo end"))
    assert [cut.facts.shown for cut in lab.kept.cuts] == ["job/2"]
    await lab.rewind(lab.kept.failed_cut, steps("echo once; echo made > file", "cat file", "echo end"))
    assert lab.output() == "made\nend\n"
    (started,) = lab.said(JobStarted)
    assert started.steps == 3
    assert next(event.step for event in lab.events if isinstance(event, StepEvent)) == 2


async def test_a_run_that_went_on_and_failed_can_go_on_itself(lab: Lab) -> None:
    one = "echo one > file"
    await lab.run(steps(one, "exit 1", "exit 2"))
    first = lab.kept
    await lab.rewind(first.failed_cut, steps(one, "echo two >> file", "exit 2"))
    second = lab.store.runs()[0]
    assert (second.facts.of, second.failed_cut.facts.shown) == (first.facts.run_id, "job/3")
    await lab.rewind(second.failed_cut, steps(one, "echo two >> file", "cat file"))
    assert lab.output() == "one\ntwo\n"
    await lab.rewind(first.failed_cut, steps(one, "echo other >> file", "cat file"))
    assert lab.output() == "one\nother\n"


async def test_github_run_id_stays_what_earlier_steps_were_told(lab: Lab) -> None:
    tell = "echo ${{ github.run_id }}"
    await lab.run(steps(tell, "exit 1"))
    before = lab.output()
    for _ in range(2):
        await lab.rewind(lab.store.runs()[0].failed_cut, steps(tell, f"{tell}; exit 1"))
        assert lab.output() == before


async def test_masks_hold_from_the_first_event_on(lab: Lab) -> None:
    mask = "echo '::add-mask::Mona'"
    await lab.run(steps(mask, "exit 1"))
    await lab.rewind(lab.kept.failed_cut, steps(mask, "echo Mona", "echo ok"))
    assert "Mona" not in str([event.to_json() for event in lab.events])
    assert "***" in lab.output()


async def test_on_failure_one_cut_stays_for_each_step_that_made_a_job_fail(lab: Lab) -> None:
    failing = """
        on: push
        jobs:
          a:
            runs-on: ubuntu-latest
            steps:
              - run: echo a
              - run: exit 1
              - run: echo always
                if: always()
          b:
            runs-on: ubuntu-latest
            steps:
              - run: exit 1
              - run: echo never
        """
    await lab.run(failing)
    assert [cut.facts.shown for cut in lab.kept.cuts] == ["a/2", "b/1"]
    assert lab.kept.failed_cut == lab.kept.cuts[0]
    await lab.rewind(lab.kept.failed_cut, failing.replace("exit 1", "true"))
    assert "b" not in lab.said(RunRewound)[0].done


async def test_set_up_has_run_and_clean_up_is_to_come(lab: Lab) -> None:
    from cloche.config import Command
    from cloche.errors import Position

    where = Position("cloche.toml", 1, 1)
    around = {
        "setups": (Command("Set up", "echo setting; echo A=1 >> $GITHUB_ENV", where),),
        "cleanups": (Command("Clean up", "echo cleaning $A", where),),
    }
    await lab.run(steps("exit 1"), **around)
    assert lab.kept.failed_cut.facts.shown == "job/2"
    await lab.rewind(lab.kept.failed_cut, steps("echo mended $A"))
    assert lab.output() == "mended 1\ncleaning 1\n"


async def test_what_a_step_cannot_be_evaluated_for_can_be_mended(lab: Lab) -> None:
    wrong = steps("echo one", "echo ${{ fromJSON('{') }}")
    broken = wrong + "        env: {A: \"${{ fromJSON('{') }}\"}\n"
    await lab.run(broken)
    assert lab.kept.failed_cut.facts.shown == "job/2"
    assert (await lab.rewind(lab.kept.failed_cut, steps("echo one", "echo two"))).conclusion == "success"


async def test_jobs_go_one_after_the_other(lab: Lab) -> None:
    jobs = "".join(
        f"  j{n}:\n    runs-on: ubuntu-latest\n    steps: [{{run: sleep 0.01}}, {{run: sleep 0.01}}]\n"
        for n in range(4)
    )
    await lab.run(f"on: push\njobs:\n{jobs}", snapshots="each-step")
    order = [event.job for event in lab.events if isinstance(event, StepEvent)]
    assert order == sorted(order)


async def test_a_provider_that_takes_none_lets_the_run_go_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object) -> VmSnapshot:
        raise ProviderError("no room")

    monkeypatch.setattr(lab.manager, "snapshot", none)
    assert (await lab.run(steps("true", "true"))).conclusion == "success"
    said = [event.message for event in lab.said(Notice)]
    assert said == ["No more snapshots are made of this run: no room"]
    assert (await lab.run(steps("true", "exit 1"))).conclusion == "failure"
    assert lab.store.runs() == []


async def test_what_is_still_ending_in_the_guest_is_waited_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, refusals = lab.manager.snapshot, iter((GuestError("under way"), GuestError("under way")))

    async def later(session: Session, folder: Path) -> VmSnapshot:
        if (refusal := next(refusals, None)) is not None:
            raise refusal
        return await take(session, folder)

    monkeypatch.setattr(lab.manager, "snapshot", later)
    await lab.run(steps("exit 1"))
    assert lab.kept.failed_cut.facts.shown == "job/1"


@pytest.mark.parametrize("end", ["cancel", "abort", "lose"])
async def test_however_a_step_came_to_its_end_it_can_be_done_again(lab: Lab, end: str) -> None:
    def act(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == 2:
            if end == "lose":
                (vm,) = lab.provider._vms.values()
                vm.guest.lose(GuestLost("its VM died"))
            else:
                getattr(lab.executor, end)()

    lab.hook = act
    assert (await lab.run(steps("echo one > file", "sleep 5", "echo"))).conclusion != "success"
    assert lab.kept.failed_cut.facts.shown == "job/2"
    lab.hook = lambda _event: None
    await lab.rewind(lab.kept.failed_cut, steps("echo one > file", "cat file", "echo"))
    assert lab.output().startswith("one\n")


async def test_a_job_that_is_new_waits_its_turn(lab: Lab) -> None:
    await lab.run(steps("echo one", "exit 1"))
    new = "  new:\n    runs-on: ubuntu-latest\n    steps: [{run: echo new}]\n"
    text = steps("echo one", "echo two").replace("jobs:\n", f"jobs:\n{new}")
    assert (await lab.rewind(lab.kept.failed_cut, text)).conclusion == "success"
    assert lab.output() == "two\nnew\n"


async def test_a_folder_that_cannot_be_written_lets_the_run_go_on(lab: Lab) -> None:
    lab.store.folder.touch()
    assert (await lab.run(steps("true"))).conclusion == "success"
    assert "No snapshots are made of this run" in str(lab.events)


async def test_another_format_is_refused_by_its_number(lab: Lab) -> None:
    await lab.run(steps("exit 1"))
    told = {**lab.kept.failed_cut.checkpoint(), "version": 99}
    with pytest.raises(ProviderError, match="format 99"):
        Checkpoint.from_json(told)
    nonsense: Any
    right = {**told, "version": 1}
    spec = {**told["request"], "spec": {"image": "default", "other": 1}}
    wrong: list[dict[str, Any]] = [
        {"place": 3},
        {"results": [{}]},
        {"state": {}},
        {"request": {}},
        {"request": spec},
        {"more": 1},
    ]
    for nonsense in ({}, {"version": 1}, [], None, *({**right, **one} for one in wrong)):
        with pytest.raises(ProviderError):
            Checkpoint.from_json(nonsense)


async def test_a_request_is_read_as_it_was_written(lab: Lab) -> None:
    event = EventInfo(payload={"a": [1, {"b": None}]}, changed=("x", "y"), head_ref="h")
    await lab.run(
        steps("exit 1"), secrets={"S": "v"}, env={"E": "1"}, vars={"V": "2"}, event=event,
        step_timeout=5.0, matrix={}, settled=frozenset({"cpus"}), include=("i",),
    )  # fmt: skip
    checkpoint = Checkpoint.from_json(lab.kept.failed_cut.checkpoint())
    request = checkpoint.make_request(lambda _labels: None)
    for field in dataclasses.fields(request):
        if field.name not in {"image_for", "timing"}:
            wanted = {"root": lab.root, "event": event, "secrets": {"S": "v"}, "env": {"E": "1"},
                      "vars": {"V": "2"}, "step_timeout": 5.0, "settled": frozenset({"cpus"}),
                      "include": ("i",), "snapshots": "on-failure"}  # fmt: skip
            default = getattr(RunRequest(root=lab.root), field.name)
            assert getattr(request, field.name) == wanted.get(field.name, default), field.name
