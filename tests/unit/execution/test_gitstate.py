"""What GitHub would know of an event, told from a real repository.

https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cloche.errors import UsageError
from cloche.execution.gitstate import NO_COMMIT, EventInfo, event_from_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.execution.conftest import Repository


def write_payload(folder: Path, payload: object) -> Path:
    path = folder / "event.json"
    path.write_text(json.dumps(payload))
    return path


def test_a_push_of_the_last_commit(repository: Repository) -> None:
    before = repository.commit("one", {"a.txt": "1", "b/c.txt": "2"})
    sha = repository.commit("two\n\nwhy", {"b/c.txt": "3", "d é.txt": "4"})
    repository.git("remote", "add", "origin", "git@github.com:octo/hello.git")

    info = event_from_repository(repository.path)

    assert info.name == "push"
    assert info.sha == sha
    assert (info.ref, info.ref_name, info.ref_type) == ("refs/heads/main", "main", "branch")
    assert (info.repository, info.owner, info.repository_name) == ("octo/hello", "octo", "hello")
    assert (info.head_ref, info.base_ref) == ("", "")
    assert info.changed == ("b/c.txt", "d é.txt")
    assert info.payload["before"] == before
    assert info.payload["after"] == sha
    assert info.payload["head_commit"]["message"] == "two\n\nwhy"


def test_the_first_commit_changes_all_its_files(repository: Repository) -> None:
    repository.commit("one", {"a": "1", "b": "2"})

    info = event_from_repository(repository.path)

    assert info.changed == ("a", "b")
    assert info.payload["before"] == NO_COMMIT


def test_a_merge_is_compared_with_what_the_branch_was(repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("checkout", "-q", "-b", "topic")
    repository.commit("topic", {"t": "1"})
    repository.git("checkout", "-q", "main")
    repository.commit("two", {"b": "1"})
    repository.git("merge", "-q", "--no-edit", "topic")

    assert event_from_repository(repository.path).changed == ("t",)


def test_a_push_with_a_payload_is_compared_with_what_was_before(
    repository: Repository, tmp_path: Path
) -> None:
    before = repository.commit("one", {"a": "1"})
    repository.commit("two", {"b": "1"})
    repository.commit("three", {"c": "1"})
    payload = {"ref": "refs/heads/release", "before": before, "repository": {"full_name": "octo/other"}}

    info = event_from_repository(repository.path, "push", write_payload(tmp_path, payload))

    assert info.changed == ("b", "c")
    assert info.ref == "refs/heads/release"
    assert info.repository == "octo/other"
    assert info.payload == payload


def test_what_was_before_may_be_unknown(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1"})
    payload = write_payload(tmp_path, {"before": "1" * 40})

    assert event_from_repository(repository.path, "push", payload).changed is None


def test_a_pull_request_is_compared_with_its_base(repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("checkout", "-q", "-b", "feature/x")
    sha = repository.commit("two", {"b": "1"})
    repository.commit("three", {"c": "1"})
    repository.git("checkout", "-q", "main")
    repository.commit("elsewhere", {"d": "1"})
    repository.git("checkout", "-q", "feature/x")

    info = event_from_repository(repository.path, "pull_request")

    assert info.changed == ("b", "c")
    assert info.sha != sha
    assert (info.head_ref, info.base_ref) == ("feature/x", "main")
    assert (info.ref, info.ref_name) == ("refs/pull/1/merge", "1/merge")
    assert info.action == "opened"


def test_a_pull_request_as_its_payload_says(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1"})
    payload: dict[str, Any] = {
        "action": "labeled",
        "number": 7,
        "pull_request": {"head": {"ref": "theirs"}, "base": {"ref": "gone"}},
        "sender": {"login": "mona"},
    }

    info = event_from_repository(repository.path, "pull_request", write_payload(tmp_path, payload))

    assert (info.head_ref, info.base_ref, info.ref) == ("theirs", "gone", "refs/pull/7/merge")
    assert (info.action, info.actor) == ("labeled", "mona")
    assert info.changed is None


def test_other_events_change_no_paths(repository: Repository) -> None:
    repository.commit("one", {"a": "1"})

    info = event_from_repository(repository.path, "workflow_dispatch")

    assert info.changed is None
    assert info.payload["inputs"] == {}


def test_a_detached_head_is_its_tag(repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("tag", "v1")
    repository.git("checkout", "-q", "--detach")

    info = event_from_repository(repository.path)

    assert (info.ref, info.ref_name, info.ref_type) == ("refs/tags/v1", "v1", "tag")


def test_a_detached_head_without_a_tag(repository: Repository) -> None:
    repository.commit("one", {"a": "1"})
    repository.git("checkout", "-q", "--detach")

    assert event_from_repository(repository.path).ref_name == "HEAD"


def test_a_repository_without_a_commit(repository: Repository) -> None:
    info = event_from_repository(repository.path)

    assert (info.sha, info.ref, info.changed) == (NO_COMMIT, "refs/heads/main", None)


def test_a_folder_within_another_repository_is_no_part_of_it(repository: Repository) -> None:
    repository.commit("one", {"example/a": "1", "b": "1"})
    repository.git("remote", "add", "origin", "https://github.com/octo/outer.git")

    for event in ("push", "pull_request"):
        info = event_from_repository(repository.path / "example", event)
        assert (info.sha, info.repository, info.changed) == (NO_COMMIT, "local/example", None)


def test_a_folder_that_is_no_repository(tmp_path: Path) -> None:
    folder = tmp_path / "my project!"
    folder.mkdir()

    info = event_from_repository(folder)

    assert info.repository == "local/my-project"
    assert info.sha == NO_COMMIT


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/octo/hello", "octo/hello"),
        ("https://user:token@github.com/octo/hello.git/", "octo/hello"),
        ("ssh://git@github.com:22/octo/hello.git", "octo/hello"),
        ("git@github.com:octo/hello.git", "octo/hello"),
        ("/srv/git/group/hello.git", "group/hello"),
        ("hello", "local/repository"),
    ],
)
def test_the_remote_names_the_repository(repository: Repository, url: str, name: str) -> None:
    repository.git("remote", "add", "origin", url)

    assert event_from_repository(repository.path).repository == name


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no JSON"), ("[1]", "holds no JSON object"), ("[" * 200_000, "is no JSON")],
)
def test_a_bad_payload_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "event.json"
    path.write_text(content)

    with pytest.raises(UsageError, match=message):
        event_from_repository(tmp_path, "push", path)


def test_a_missing_payload_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the event file .*nowhere\.json: No such file"):
        event_from_repository(tmp_path, "push", tmp_path / "nowhere.json")


def test_a_broken_repository_is_named(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")

    with pytest.raises(UsageError, match="git cannot read the repository"):
        event_from_repository(tmp_path)


def test_a_repository_without_git_installed(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(UsageError, match="git is not installed"):
        event_from_repository(repository.path)


def test_nothing_of_the_repository_is_run(repository: Repository, tmp_path: Path) -> None:
    repository.commit("one", {"a": "1", ".gitattributes": "* filter=evil diff=evil\n"})
    trap = tmp_path / "trap"
    marker = tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {marker}\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "diff.evil.textconv", "filter.evil.clean", "core.pager"):
        repository.git("config", key, str(trap))
    repository.git("config", "core.hooksPath", str(tmp_path))

    event_from_repository(repository.path, "push")
    event_from_repository(repository.path, "pull_request")

    assert not marker.exists()


def test_variables_of_a_git_hook_do_not_lead_elsewhere(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = repository.commit("one", {"a": "1"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))

    assert event_from_repository(repository.path).sha == sha


def test_an_event_made_by_hand() -> None:
    info = EventInfo(ref="refs/tags/v1.2")

    assert (info.ref_name, info.ref_type, info.action) == ("v1.2", "tag", None)
