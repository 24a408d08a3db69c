"""Runs that can be taken up again: a folder for each, in it a folder for each of its cuts.

``runs/<run id>/`` holds ``run.json``, ``lock`` and the cuts, ``0001``, ``0002``, …; a cut is a VM's snapshot with
``checkpoint.json`` and ``cut.json`` beside it. Who writes a run, or takes something from it, holds its lock
exclusively; who goes on from one of its cuts shares it. A cut is made below ``.new`` and becomes visible, whole, by one
renaming; it goes by one, too. So whatever dies when, there is never half a cut, and what was left is told by its place.

Folders have mode 0700, files 0600: a cut holds whatever the guest's memory held, secrets too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from cloche.errors import ProviderError, UsageError
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Self

VERSION = 1
"""Of what the folders hold. A cut of another version is refused by that number, and expires like all others."""

CHECKPOINT = "checkpoint.json"
_RUN, _CUT, _LOCK = "run.json", "cut.json", "lock"
_NEW, _GONE = ".new", ".gone"
_MAX_FILE = 256 * 1024 * 1024
_BLOCK = 512
_ATTEMPTS, _PAUSE = 20, 0.005


@record
class CutFacts:
    """What is told of a cut without reading all of it: before which step it was made.

    ``at`` is seconds since the epoch, ``size`` bytes that it alone takes, ``paused`` the seconds for which the VM stood
    still. ``failed`` is set when the step then failed.
    """

    number: int
    at: float
    job: str
    leg: str | None
    job_name: str
    step: int
    step_id: str
    step_name: str
    size: int = 0
    paused: float = 0.0
    version: int = VERSION

    @property
    def shown(self) -> str:
        """The cut as it can be asked for."""
        return f"{self._place}/{self.step}"

    @property
    def _place(self) -> str:
        return f"{self.job} ({self.leg})" if self.leg else self.job

    def answers(self, wanted: str) -> bool:
        """Tell whether it is the cut before ``JOB/STEP``: a job's id or name, a step's number, id or name."""
        jobs = {self.job, self.job_name, self._place}
        steps = {str(self.step), self.step_id, self.step_name} - {""}
        return any(wanted == f"{job}/{step}" for job in jobs for step in steps)


@record
class RunFacts:
    """What is told of a run. Times are seconds since the epoch; ``ended`` is ``None`` while it goes on, or was killed.

    ``of`` is the run that it went on from, if any; ``failed`` the numbers of the cuts before steps that failed.
    """

    run_id: str
    workflow: str
    path: str
    root: str
    began: float
    of: str | None = None
    ended: float | None = None
    conclusion: str | None = None
    failed: tuple[int, ...] = ()
    version: int = VERSION


@record
class Cut:
    """A whole cut in its folder."""

    folder: Path
    facts: CutFacts

    def checkpoint(self) -> Any:
        """Read what the executor wrote. ProviderError when it cannot be read."""
        return _read(self.folder / CHECKPOINT)


@record
class KeptRun:
    """A run and its cuts, in the order in which they were made; ``live`` while its process goes on."""

    facts: RunFacts
    cuts: tuple[Cut, ...]
    live: bool

    @property
    def size(self) -> int:
        """Bytes that its cuts take together, and nothing else shares."""
        return _taken(self.cuts)

    @property
    def last_sign(self) -> float:
        """When it ended, as far as it is known."""
        return self.facts.ended or max([self.facts.began, *(cut.facts.at for cut in self.cuts)])

    @property
    def failed_cut(self) -> Cut:
        """The cut before the step that failed first, else the last one."""
        return next((cut for cut in self.cuts if cut.facts.number in self.facts.failed), self.cuts[-1])


class RunStore:
    """The runs that are kept in ``folder``.

    ``keep`` is how many seconds after its end a run is kept, ``size`` how many bytes all cuts may take: past that the
    oldest goes first. ``clock`` gives seconds since the epoch.
    """

    def __init__(
        self, folder: Path, *, keep: float, size: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.size = size
        self._clock = clock

    def begin(self, facts: RunFacts) -> RunWriter:
        """Make room for a run that begins. OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made, lock = self._make(f"{_NEW}-{facts.run_id}")
        try:
            _write(made / _RUN, dataclasses.asdict(facts))
            taken = _taken(cut for run in self.runs() for cut in run.cuts)
            return RunWriter(made.rename(self.folder / facts.run_id), facts, lock, self, taken)
        except BaseException:
            lock.close()
            shutil.rmtree(made, ignore_errors=True)
            raise

    def _make(self, name: str) -> tuple[Path, _Lock]:
        """Make a folder and lock it; others may take it for one that was left, until it is locked."""
        made = self.folder / name
        for _ in range(_ATTEMPTS):
            made.mkdir(mode=0o700, exist_ok=True)
            if (lock := _Lock.take(made, shared=False)) is not None:
                return made, lock
            time.sleep(_PAUSE)
        raise BlockingIOError(f"{made} was cleared away as it was made")

    def runs(self) -> list[KeptRun]:
        """Return all runs that have cuts, the one that began last first."""
        found = [run for folder in self._folders() if (run := _load(folder)) and run.cuts]
        return sorted(found, key=lambda run: run.facts.began, reverse=True)

    def find(self, name: str) -> KeptRun:
        """Return the run of this id or unique beginning of one; ``last`` is the one that began last.

        UsageError when there is none, when there are several, and when it still goes on.
        """
        runs = self.runs()
        if name == "last":
            found = [run for run in runs if not run.live][:1]
        else:
            found = [run for run in runs if run.facts.run_id.removeprefix("run-").startswith(_bare(name))]
        if not found:
            raise UsageError(
                f"there is no run {name!r} to go on with"
                if name != "last"
                else "there is no run to go on with",
                hint="cloche runs lists those that there are; cloche run --snapshot on-failure keeps them",
            )
        if len(found) > 1:
            ids = ", ".join(run.facts.run_id for run in found)
            raise UsageError(f"{name!r} may be any of {ids}", hint="write more of it")
        if found[0].live:
            raise UsageError(f"{found[0].facts.run_id} still goes on: wait for its end")
        return found[0]

    @contextlib.contextmanager
    def held(self, run: KeptRun) -> Iterator[None]:
        """Keep a run from expiring meanwhile. UsageError when it has gone already."""
        lock = _Lock.take(self.folder / run.facts.run_id, shared=True)
        if lock is None:
            raise UsageError(
                f"{run.facts.run_id} is in use or has gone", hint="cloche runs lists what there is"
            )
        try:
            yield
        finally:
            lock.close()

    def until(self, run: KeptRun) -> float:
        """Return when a run expires, in seconds since the epoch."""
        return run.last_sign + self.keep

    def expire(self) -> list[str]:
        """Remove runs whose time is over, the oldest cuts past the size, and what killed processes left.

        Returns a line for each run and cut; runs in use are left alone.
        """
        told = []
        now = self._clock()
        for folder in self._folders(hidden=True):
            with _locked(folder) as ours:
                run = _load(folder) if ours else None
                if not ours:
                    continue
                for name in (_NEW, _GONE):
                    shutil.rmtree(folder / name, ignore_errors=True)
                if self._is_over(folder, run, now):
                    told += [f"removed run {run.facts.run_id}"] if run and run.cuts else []
                    self._remove(folder)
        return [*told, *self.shrink()[1]]

    def remove(self, run: KeptRun) -> None:
        """Remove a run and its cuts. UsageError while it goes on, or somebody goes on from it."""
        folder = self.folder / run.facts.run_id
        with _locked(folder) as ours:
            if not ours:
                raise UsageError(f"{run.facts.run_id} is in use", hint="wait for it, or interrupt it")
            self._remove(folder)

    def shrink(self, own: RunWriter | None = None) -> tuple[int, list[str]]:
        """Remove the oldest cuts while all take more than ``size``; of ``own`` run all but the last may go.

        Returns the bytes that they take then, and a line for each that went.
        """
        runs = self.runs()
        there = {cut.folder: cut for run in runs for cut in run.cuts}
        left = _taken(there.values())
        told: list[str] = []
        by_age = sorted([(cut, of) for of in runs for cut in of.cuts], key=lambda item: item[0].facts.at)
        for cut, run in by_age:
            if left <= self.size:
                break
            mine = own is not None and own.folder == cut.folder.parent
            if mine and cut == run.cuts[-1]:
                continue
            with contextlib.nullcontext(enter_result=True) if mine else _locked(cut.folder.parent) as ours:
                if ours:
                    _discard(there.pop(cut.folder).folder)
                    left = _taken(there.values())
                    told.append(f"removed cut {cut.facts.shown} of run {run.facts.run_id}")
        return left, told

    def _is_over(self, folder: Path, run: KeptRun | None, now: float) -> bool:
        if run is not None:
            return not run.cuts or now > self.until(run)
        if folder.name.startswith("."):  # what was being made, or removed
            return True
        return now > folder.stat().st_mtime + self.keep  # it may be of another version of Cloche

    def _folders(self, *, hidden: bool = False) -> list[Path]:
        try:
            found = sorted(self.folder.iterdir())
        except OSError:  # there is none, or none that can be read: then there are no runs
            return []
        return [path for path in found if path.is_dir() and (hidden or not path.name.startswith("."))]

    def _remove(self, folder: Path) -> None:
        gone = self.folder / f"{_GONE}-{folder.name.lstrip('.')}"
        with contextlib.suppress(OSError):
            shutil.rmtree(folder.rename(gone) if folder != gone else gone, ignore_errors=True)


class RunWriter:
    """A run that goes on, and is kept as it does; it belongs to one process, which closes it.

    ``taken`` is the bytes that all cuts of all runs take, as far as this process knows.
    """

    def __init__(self, folder: Path, facts: RunFacts, lock: _Lock, store: RunStore, taken: int) -> None:
        self.folder = folder
        self._taken = taken
        self._facts = facts
        self._lock = lock
        self._store = store
        self._number = 0

    async def cut(
        self, facts: CutFacts, checkpoint: Mapping[str, Any], take: Callable[[Path], Awaitable[CutFacts]]
    ) -> Cut:
        """Make a cut: ``take`` puts the VM's half into a folder and returns ``facts`` with what it came to.

        Nothing is left of one that fails. OSError, and what ``take`` raises.
        """
        self._number += 1
        name = f"{self._number:04}"
        made = self.folder / _NEW / name
        try:
            made.parent.mkdir(mode=0o700, exist_ok=True)
            facts = await take(made)
            _write(made / CHECKPOINT, checkpoint)
            size = facts.size + (made / CHECKPOINT).stat().st_size
            facts = dataclasses.replace(facts, number=self._number, size=size)
            _write(made / _CUT, dataclasses.asdict(facts))
            cut = Cut(made.rename(self.folder / name), facts)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        self._taken += facts.size
        if self._taken > self._store.size:
            self._taken, _ = self._store.shrink(self)
        return cut

    def note_failure(self, cut: Cut) -> None:
        """Note that the step after ``cut`` failed. OSError."""
        self._update(failed=(*self._facts.failed, cut.facts.number))

    def drop(self, cut: Cut) -> None:
        """Remove a cut."""
        _discard(cut.folder)
        self._taken -= cut.facts.size

    def close(self, conclusion: str, *, keep: bool) -> KeptRun | None:
        """End the run; without ``keep``, or without cuts, nothing of it stays. Returns what does. OSError."""
        try:
            run = _load(self.folder)
            if keep and run is not None and run.cuts:
                self._update(ended=self._store._clock(), conclusion=conclusion)  # noqa: SLF001 - its writer
                shutil.rmtree(self.folder / _NEW, ignore_errors=True)
                return KeptRun(self._facts, run.cuts, live=False)
            self._store._remove(self.folder)  # noqa: SLF001 - its writer
            return None
        finally:
            self._lock.close()

    def _update(self, **changes: Any) -> None:
        self._facts = dataclasses.replace(self._facts, **changes)
        _write(self.folder / _RUN, dataclasses.asdict(self._facts))


class _Lock:
    """A run's lock, free when its holder has died."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path, *, shared: bool) -> Self | None:
        """Take it at once; ``None`` when others have it, or there is no such folder."""
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), (folder / _LOCK).stat()):
                raise FileNotFoundError(folder)  # it was removed meanwhile, and another is in its place
        except OSError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a run's lock alone; false where others have it."""
    lock = _Lock.take(folder, shared=False)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.close()


def _load(folder: Path) -> KeptRun | None:
    """Read a run; ``None`` for what is none."""
    try:
        told = _read(folder / _RUN)
        facts = RunFacts(**{**_known(RunFacts, told), "failed": tuple(told["failed"])})
        cuts = [
            cut
            for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]*"))
            if (cut := _load_cut(path)) is not None
        ]
    except (ProviderError, TypeError, KeyError, AttributeError):
        return None
    lock = None if facts.ended is not None else _Lock.take(folder, shared=True)
    if lock is not None:
        lock.close()
    return KeptRun(facts, tuple(cuts), live=facts.ended is None and lock is None)


def _load_cut(folder: Path) -> Cut | None:
    try:
        return Cut(folder, CutFacts(**_known(CutFacts, _read(folder / _CUT))))
    except (ProviderError, TypeError, AttributeError):
        return None


def _taken(cuts: Iterable[Cut]) -> int:
    """Return the bytes of the files that have no links elsewhere, each counted once.

    A disk's layers are shared by the cuts of a run, templates and images with all that is made of them.
    """
    links: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for cut in cuts:
        for folder, _, names in os.walk(cut.folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(f"{folder}/{name}")
                    file = status.st_dev, status.st_ino
                    links[file] += 1
                    sizes[file] = status.st_nlink, status.st_blocks * _BLOCK
    return sum(size for file, (number, size) in sizes.items() if links[file] >= number)


def _known(kind: type[RunFacts | CutFacts], told: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are known here: another version may have more."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in told.items() if name in names}


def _discard(folder: Path) -> None:
    """Remove a cut: first from sight."""
    gone = folder.parent / _GONE / folder.name
    with contextlib.suppress(OSError):
        gone.parent.mkdir(mode=0o700, exist_ok=True)
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_MAX_FILE))
    except (OSError, ValueError) as wrong:
        raise ProviderError(f"cannot read {path}: {wrong}") from wrong


def _write(path: Path, data: object) -> None:
    partial = path.with_name(f"{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(data))  # json.dump is ten times slower: it is not C's
    partial.replace(path)


def _bare(name: str) -> str:
    return name.removeprefix("run-")
