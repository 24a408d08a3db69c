"""``actions/checkout`` in a job. https://github.com/actions/checkout"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.events import StepFinished
from cloche.execution.gitstate import event_from_repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.vm.fake import Call
    from cloche.vm.guest import ExecSpec
    from tests.unit.execution.conftest import Lab, Repository


async def run(lab: Lab, repository: Repository, steps: str) -> None:
    event = event_from_repository(repository.path)
    await lab.steps(steps, root=repository.path, event=event)


async def test_the_repository_is_in_the_workspace(lab: Lab, repository: Repository) -> None:
    sha = repository.commit("one", {"a.txt": "1\n", "sub/b.txt": "2\n"})

    await run(
        lab,
        repository,
        """
        - uses: actions/checkout@v4
          id: get
        - run: |
            pwd
            cat a.txt sub/b.txt .git/HEAD
            echo ${{ steps.get.outputs.commit }} ${{ steps.get.outputs.ref }}
        """,
    )

    assert lab.output(step=2) == (
        "/home/runner/work/repository/repository\n1\n2\nref: refs/heads/main\n" + f"{sha} refs/heads/main\n"
    )
    assert lab.finished() == {"job/1": "success", "job/2": "success", "job": "success"}


async def test_its_boot_id_was_read_in_the_guest(lab: Lab, repository: Repository) -> None:
    repository.commit("one", {"a": "1"})

    await run(lab, repository, "- uses: actions/checkout@v4\n- run: 'true'")

    boots = {event.boot_id for event in lab.events if isinstance(event, StepFinished)}
    assert len(boots) == 1
    assert None not in boots


async def test_a_path_in_the_workspace(lab: Lab, repository: Repository) -> None:
    repository.commit("one", {"a": "1\n"})

    await run(
        lab, repository, "- {uses: actions/checkout@v4, with: {Path: ./deep/er/}}\n- run: cat deep/er/a"
    )

    assert lab.output(step=2) == "1\n"


@pytest.mark.parametrize("path", ["../out", "/etc", "../repository-2"])
async def test_a_path_outside_the_workspace_is_refused(lab: Lab, repository: Repository, path: str) -> None:
    await run(lab, repository, f"- {{uses: actions/checkout@v4, with: {{path: {path}}}}}")

    assert lab.finished()["job/1"] == "failure"
    assert "is not under '/home/runner/work/repository/repository'" in lab.messages()[0]


async def test_the_folder_is_emptied_unless_told_to_keep_an_earlier_checkout(
    lab: Lab, repository: Repository
) -> None:
    repository.commit("one", {"a": "1"})

    await run(
        lab,
        repository,
        """
        - run: echo mine > b
        - {uses: actions/checkout@v4, with: {clean: false}}
        - run: ls; echo mine > b
        - {uses: actions/checkout@v4, with: {clean: false}}
        - run: ls
        - uses: actions/checkout@v4
        - run: ls
        """,
    )

    assert [lab.output(step=step) for step in (3, 5, 7)] == ["a\n", "a\nb\n", "a\n"]


async def test_one_program_and_one_archive(make_lab: Callable[..., Lab], repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    started: list[list[str]] = []

    async def note(spec: ExecSpec, _call: Call) -> None:
        started.append(list(spec.argv))

    lab = make_lab(handler=note)
    async with lab.manager:
        await run(lab, repository, "- uses: actions/checkout@v4")

    assert started == [["mkdir", "-p", "--", "/home/runner/work/repository/repository"]]


async def test_a_repository_that_cannot_be_read_fails_the_step(lab: Lab, repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    event = event_from_repository(repository.path)
    for path in (repository.path / ".git/objects").rglob("*"):
        if path.is_file():
            path.unlink()

    await lab.steps(
        "- {uses: actions/checkout@v4, continue-on-error: true}", root=repository.path, event=event
    )

    assert lab.finished()["job/1"] == "success (failure)"
    assert "git cannot read the repository" in lab.messages()[0]


async def test_a_full_guest_fails_the_step(make_lab: Callable[..., Lab], repository: Repository) -> None:
    from cloche.vm.provider import VmSpec

    repository.commit("one", {"a": "x" * 100_000})
    lab = make_lab()
    async with lab.manager:
        await lab.steps("- uses: actions/checkout@v4", root=repository.path, spec=VmSpec(disk=50_000))

    assert lab.finished()["job/1"] == "failure"
    assert "No space left on device" in lab.messages()[0]


async def test_history_is_as_deep_as_asked(lab: Lab, repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    repository.commit("two", {"a": "2"})

    await run(
        lab,
        repository,
        """
        - uses: actions/checkout@v4
        - run: test -f .git/shallow
        - {uses: actions/checkout@v4, with: {fetch-depth: 0}}
        - run: test ! -f .git/shallow
        """,
    )

    assert lab.finished()["job"] == "success"


async def test_cancelling_ends_a_checkout(lab: Lab, repository: Repository) -> None:
    from cloche.events import Event, StepStarted

    repository.commit("one", {"a": "1"})

    def cancel(event: Event) -> None:
        if isinstance(event, StepStarted):
            lab.executor.cancel()

    lab.hooks.append(cancel)
    await run(lab, repository, "- uses: actions/checkout@v4\n- {run: echo always, if: always()}")

    assert lab.finished() == {"job/1": "cancelled", "job/2": "success", "job": "cancelled"}
