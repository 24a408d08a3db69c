"""What GitHub would know of a push or a pull request, told from the repository at hand.

Only git is asked, and in ways that run nothing that the repository brings along: no hooks, no file system
monitor, no external diff, no filters, no signature check. What the contexts hold:
https://docs.github.com/en/actions/reference/workflows-and-actions/contexts and, on the same site,
"Events that trigger workflows".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from cloche.errors import UsageError
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

GIT_DEADLINE = 30.0
"""Seconds for a git process that only looks something up."""

MAX_PAYLOAD = 32 * 1024 * 1024
"""Bytes of an event file; GitHub's own payloads end at 25 MB."""

NO_COMMIT = "0" * 40

_SAFE_CONFIG = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.quotePath=false")
_GIT_VARIABLES_KEPT = {"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"}
_PULL_REQUESTS = {"pull_request", "pull_request_target"}
_HEADS, _TAGS = "refs/heads/", "refs/tags/"


@record
class EventInfo:
    """The event a run is for.

    ``ref`` is full, ``repository`` is ``owner/name``, ``payload`` is ``github.event``. ``base_ref`` and
    ``head_ref`` are a pull request's branches, else empty. ``changed`` holds the paths that the event's
    commits change, ``None`` when nobody can tell.
    """

    name: str = "push"
    sha: str = NO_COMMIT
    ref: str = "refs/heads/main"
    repository: str = "local/workspace"
    actor: str = "local"
    head_ref: str = ""
    base_ref: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] | None = None

    @property
    def action(self) -> str | None:
        """What happened to the event's subject (``opened``), if the payload says so."""
        return _text(self.payload, "action") or None

    @property
    def ref_name(self) -> str:
        """The branch or tag, or ``7/merge`` for a pull request."""
        return re.sub(r"\Arefs/(heads|tags|pull)/", "", self.ref)

    @property
    def ref_type(self) -> str:
        """``tag`` or ``branch``; a pull request's ref counts as a branch."""
        return "tag" if self.ref.startswith(_TAGS) else "branch"

    @property
    def owner(self) -> str:
        """The repository's owner."""
        return self.repository.partition("/")[0]

    @property
    def repository_name(self) -> str:
        """The repository's name without its owner."""
        return self.repository.rpartition("/")[2]


def git_command(root: Path, *arguments: str) -> list[str]:
    """Return git's command line, with all off that could run the repository's own code."""
    return ["git", "-C", str(root), *(part for item in _SAFE_CONFIG for part in ("-c", item)), *arguments]


def git_environment() -> dict[str, str]:
    """Return git's environment: ours, less what points git elsewhere; it asks nobody and takes no locks."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in _GIT_VARIABLES_KEPT
    }
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


class Asked:
    """The git processes that tell of a repository: they run while their asker does something else.

    A context manager: leaving it ends them. UsageError for a repository where git is missing.
    """

    def __init__(self, root: Path) -> None:
        self._resources = contextlib.ExitStack()
        with self._resources:
            self.head, self.config, self.commit = (
                self._resources.enter_context(_Git(root, *what))
                for what in (_ASK_HEAD, _ASK_CONFIG, _ASK_COMMIT)
            )
            self._resources = self._resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()


def event_from_repository(
    root: Path, event: str = "push", payload_file: Path | None = None, asked: Asked | None = None
) -> EventInfo:
    """Return the event as the payload file and the repository at ``root`` tell it; ``asked`` of it before, maybe.

    What the payload says goes before what git says, but for ``sha``: that is the commit at hand. A folder
    that is no repository, or within another one, and a repository without a commit are fine. Raises UsageError for
    a payload that is no JSON object and for a repository where git is missing, refuses, or does not answer.
    """
    payload = _read_payload(payload_file) if payload_file else {}
    with asked or Asked(root) as git:
        head = _read_head(root, git.head)
        config = _read_config(git.config) if head.is_repository else {}
        commit = _read_commit(git.commit) if head.has_commit else None
    pull_request = payload.get("pull_request") if event in _PULL_REQUESTS else None
    info = EventInfo(
        name=event,
        sha=head.sha,
        ref=_ref(event, payload, head),
        repository=_text(payload, "repository", "full_name") or _repository(root, config),
        actor=_text(payload, "sender", "login") or _actor(config),
    )
    if event in _PULL_REQUESTS:
        base = _text(pull_request, "base", "ref") or _text(payload, "repository", "default_branch")
        info = replace(
            info, head_ref=_text(pull_request, "head", "ref") or head.branch, base_ref=base or "main"
        )
    info = replace(info, payload=payload or _made_up_payload(info, commit))
    return replace(info, changed=_changed(root, info, payload, commit))


@record
class _Head:
    """``ref`` is what HEAD names: a branch in full, a tag if a detached HEAD has one, else ``HEAD``."""

    is_repository: bool = False
    sha: str = NO_COMMIT
    ref: str = f"{_HEADS}main"

    @property
    def has_commit(self) -> bool:
        return self.sha != NO_COMMIT

    @property
    def branch(self) -> str:
        return self.ref.removeprefix(_HEADS)


@record
class _Commit:
    """The commit at hand; ``changed`` against its first parent."""

    parents: str
    author: str
    email: str
    date: str
    message: str
    changed: tuple[str, ...]


_ASK_HEAD = ("rev-parse", "--show-prefix", "HEAD", "--symbolic-full-name", "HEAD")
_ASK_CONFIG = ("config", "-z", "--get-regexp", r"^(remote\.origin\.url|github\.user)$")
_ASK_COMMIT = (
    *(
        "log",
        "-1",
        "-z",
        "--name-only",
        "--first-parent",
        "-m",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
    ),
    *("--no-show-signature", "--format=%P%x00%an%x00%ae%x00%cI%x00%B%x00", "HEAD"),
)


def _read_head(root: Path, git: _Git) -> _Head:
    found = git.result()
    lines = found.stdout.splitlines()
    if not lines:
        if (root / ".git").exists():
            raise UsageError(
                f"git cannot read the repository {root}: {_last_line(found.stderr)}",
                hint="`git status` there says more",
            )
        return _Head()
    if lines[0]:  # a folder within another repository, whose history and names are not this folder's
        return _Head()
    if found.returncode:  # a repository without a commit: HEAD names a branch that is not born
        born = _git(root, "symbolic-ref", "--quiet", "HEAD").stdout.strip()
        return _Head(is_repository=True, ref=born or f"{_HEADS}main")
    _, sha, ref = lines
    if ref == "HEAD":
        tags = _git(root, "tag", "--points-at", "HEAD").stdout.split()
        ref = _TAGS + tags[0] if tags else f"{_HEADS}HEAD"
    return _Head(is_repository=True, sha=sha, ref=ref)


def _read_config(git: _Git) -> dict[str, str]:
    pairs = git.result().stdout.split("\0")
    return {name: value for name, _, value in (pair.partition("\n") for pair in pairs)}


def _read_commit(git: _Git) -> _Commit | None:
    found = git.result()
    fields = found.stdout.split("\0")
    if found.returncode or len(fields) < 6:  # noqa: PLR2004 - the fields of the format and what follows them
        return None
    parents, author, email, date, message, *paths = fields
    return _Commit(parents, author, email, date, message.strip("\n"), _paths(paths))


def _paths(fields: list[str]) -> tuple[str, ...]:
    return tuple(path for field in fields if (path := field.removeprefix("\n")))


def _changed(
    root: Path, info: EventInfo, payload: Mapping[str, Any], commit: _Commit | None
) -> tuple[str, ...] | None:
    """Return the paths as GitHub compares: a pull request with its base, a push with what was before."""
    if info.sha == NO_COMMIT:
        return None
    if info.name in _PULL_REQUESTS:
        for base in (f"origin/{info.base_ref}", info.base_ref):
            if (paths := _compare(root, f"{base}...HEAD")) is not None:
                return paths
        return None
    if info.name != "push" or commit is None:
        return None
    before = _text(payload, "before")
    if before and before != NO_COMMIT:
        return _compare(root, f"{before}..HEAD")
    return commit.changed


def _compare(root: Path, commits: str) -> tuple[str, ...] | None:
    options = ("--name-only", "--no-renames", "--no-ext-diff", "--no-textconv")
    found = _git(root, "diff", "-z", *options, "--end-of-options", commits, "--")
    return None if found.returncode else _paths(found.stdout.split("\0"))


def _ref(event: str, payload: Mapping[str, Any], head: _Head) -> str:
    if event in _PULL_REQUESTS:
        base = _text(payload, "pull_request", "base", "ref")
        if event == "pull_request_target" and base:
            return _HEADS + base
        number = payload.get("number", 1)
        return f"refs/pull/{number if isinstance(number, int) else 1}/merge"
    ref = _text(payload, "ref")
    if not ref:
        return head.ref
    return ref if ref.startswith("refs/") else _HEADS + ref


def _repository(root: Path, config: Mapping[str, str]) -> str:
    """Return owner and name from the remote's address, else a name made of the folder's."""
    path = config.get("remote.origin.url", "").rstrip("/").removesuffix(".git")
    found = re.search(r"[:/]([^/:@]+)/([^/:@]+)\Z", path)
    owner, name = found.groups() if found else ("local", root.resolve().name)
    return f"{_plain(owner) or 'local'}/{_plain(name) or 'workspace'}"


def _plain(name: str) -> str:
    """Return a name that GitHub could have given: it becomes part of paths in the guest."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")


def _actor(config: Mapping[str, str]) -> str:
    import getpass

    if user := config.get("github.user"):
        return user
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name: KeyError before Python 3.13, OSError since
        return "local"


def _made_up_payload(info: EventInfo, commit: _Commit | None) -> dict[str, Any]:
    """Return the part of GitHub's payload that is known here."""
    payload: dict[str, Any] = {
        "repository": {
            "name": info.repository_name,
            "full_name": info.repository,
            "owner": {"login": info.owner, "name": info.owner},
            "default_branch": "main",
            "html_url": f"https://github.com/{info.repository}",
        },
        "sender": {"login": info.actor},
    }
    if info.name in _PULL_REQUESTS:
        payload |= _pull_request(info)
    elif info.name == "push":
        payload |= _push(info, commit)
    elif info.name == "workflow_dispatch":
        payload |= {"ref": info.ref, "inputs": {}}
    return payload


def _pull_request(info: EventInfo) -> dict[str, Any]:
    repository = {"full_name": info.repository, "name": info.repository_name}
    head = {"ref": info.head_ref, "sha": info.sha, "repo": repository}
    base = {"ref": info.base_ref, "repo": repository}
    user = {"login": info.actor}
    request = {"number": 1, "title": info.head_ref, "head": head, "base": base, "user": user, "labels": []}
    return {"action": "opened", "number": 1, "pull_request": request | {"draft": False, "merged": False}}


def _push(info: EventInfo, commit: _Commit | None) -> dict[str, Any]:
    before = commit.parents.split() if commit else []
    payload: dict[str, Any] = {
        "ref": info.ref,
        "before": before[0] if before else NO_COMMIT,
        "after": info.sha,
        "created": False,
        "deleted": False,
        "forced": False,
        "pusher": {"name": info.actor},
        "head_commit": None,
        "commits": [],
    }
    if commit:
        author = {"name": commit.author, "email": commit.email}
        head = {"id": info.sha, "message": commit.message, "timestamp": commit.date, "author": author}
        payload |= {"head_commit": head, "commits": [head]}
    return payload


def _read_payload(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PAYLOAD + 1)
    except OSError as wrong:
        raise UsageError(f"cannot read the event file {path}: {wrong.strerror}") from wrong
    if len(content) > MAX_PAYLOAD:
        raise UsageError(f"the event file {path} is longer than {MAX_PAYLOAD >> 20} MiB")
    try:
        payload = json.loads(content)
    except (ValueError, RecursionError) as wrong:
        raise UsageError(f"the event file {path} is no JSON: {wrong}") from wrong
    if not isinstance(payload, dict):
        raise UsageError(
            f"the event file {path} holds no JSON object", hint="it is what `github.event` shall be"
        )
    return payload


def _text(data: object, *keys: str) -> str:
    """Return the string at ``keys`` in nested objects, empty if there is none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it says nothing")


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with _Git(root, *arguments) as git:
        return git.result()


class _Git:
    """A git that runs while others do: starting one takes longer than what it has to tell. Leaving ends it."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self._root = root
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = subprocess.Popen(
                git_command(root, *arguments),
                env=git_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="surrogateescape",
            )
        except FileNotFoundError as wrong:
            if (root / ".git").exists():
                raise UsageError(
                    "git is not installed", hint="install git: it reads the repository"
                ) from wrong

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with self._process as process:  # closes its pipes and waits
                process.kill()

    def result(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end, once. UsageError when it does not come."""
        if self._process is None:
            return subprocess.CompletedProcess(self._arguments, 128, "", "")
        try:
            stdout, stderr = self._process.communicate(timeout=GIT_DEADLINE)
        except subprocess.TimeoutExpired as late:
            what = f"`git {self._arguments[0]}` in {self._root}"
            raise UsageError(f"{what} did not answer within {GIT_DEADLINE:g} s") from late
        return subprocess.CompletedProcess(self._arguments, self._process.returncode, stdout, stderr)
