"""The executor's half of a cut: where a run is, just before a step, as data that another process can go on from.

Secrets are in it as they are in the guest's memory: it is for files that nobody else may read.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.config import Command
from cloche.errors import Position, ProviderError
from cloche.execution.gitstate import EventInfo
from cloche.execution.request import RunRequest
from cloche.execution.results import JobResult
from cloche.execution.resume import Place, Resume
from cloche.records import record
from cloche.vm.provider import VmSpec
from cloche.workflow.runson import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloche.execution.job_state import JobState
    from cloche.execution.resume import Side

VERSION = 1
"""Of the data below. Another one is refused by its number."""

_NOT_KEPT = frozenset({"image_for", "timing"})
"""Of a request: what cannot be written down, and is made anew."""


@record
class Checkpoint:
    """A run just before a step.

    ``origin`` is the run whose number ``github.run_id`` tells. ``before`` is what has been carried out of the workflow,
    part by part (see ``sameness``). ``masks`` are a Masker's. The rest is told of Resume and RunRequest.
    """

    run_id: str
    origin: str
    at: float
    workflow: str
    path: str
    request: Mapping[str, Any]
    place: Place
    elapsed: float
    state: Mapping[str, Any]
    results: tuple[JobResult, ...]
    finished: tuple[str, ...]
    before: Sequence[Sequence[Any]]
    masks: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["place"] = dataclasses.asdict(self.place)
        fields["results"] = [dataclasses.asdict(result) for result in self.results]
        return {"version": VERSION, **fields}

    @classmethod
    def from_json(cls, data: Any) -> Checkpoint:
        """Read it back. ProviderError for another version, and for what is none."""
        try:
            told = dict(data)
            version = told.pop("version")
            if version != VERSION:
                raise ProviderError(
                    f"the cut is of format {version}, this Cloche reads format {VERSION}",
                    hint="run the workflow anew",
                )
            told["place"] = Place(**told["place"])
            told["results"] = tuple(JobResult(**result) for result in told["results"])
            told["finished"] = tuple(told["finished"])
            read = cls(**told)
            read.resume(None).make_state()
            read.make_request(lambda _labels: None)
        except (TypeError, ValueError, KeyError) as wrong:
            raise ProviderError(f"the cut cannot be read: {wrong!r}", hint="run the workflow anew") from wrong
        return read

    def resume(self, side: Side | None) -> Resume:
        """Return what the jobs of a run that goes on from here have to know."""
        return Resume(
            self.run_id, self.place, self.elapsed, self.state, self.results, self.finished, side=side
        )

    def make_request(self, image_for: Callable[[Sequence[str]], str | None]) -> RunRequest:
        """Return what the run was asked to be. ``image_for`` is the request's. ProviderError."""
        try:
            told = dict(self.request)
            told["root"] = Path(told["root"])
            told["event"] = EventInfo(**{**told["event"], "changed": _tuple(told["event"]["changed"])})
            told["spec"], told["most"] = VmSpec(**told["spec"]), Size(**told["most"])
            told["settled"] = frozenset(told["settled"])
            told["jobs"], told["include"] = tuple(told["jobs"]), tuple(told["include"])
            for name in ("setups", "cleanups"):
                told[name] = tuple(_command(command) for command in told[name])
            return RunRequest(**told, image_for=image_for)
        except (TypeError, ValueError, KeyError) as wrong:
            raise ProviderError(f"the cut cannot be read: {wrong!r}", hint="run the workflow anew") from wrong


def written_request(request: RunRequest) -> dict[str, Any]:
    """Return what was asked as JSON-ready data."""
    told: dict[str, Any] = {
        field.name: getattr(request, field.name)
        for field in dataclasses.fields(request)
        if field.name not in _NOT_KEPT
    }
    told |= {name: dataclasses.asdict(told[name]) for name in ("event", "spec", "most")}
    told |= {name: [dataclasses.asdict(command) for command in told[name]] for name in ("setups", "cleanups")}
    told |= {"root": str(request.root), "settled": sorted(request.settled)}
    told |= {name: dict(told[name]) for name in ("secrets", "vars", "inputs", "env", "matrix")}
    return told


def written_state(state: JobState) -> dict[str, Any]:
    """Return a leg's state as JSON-ready data, apart from what goes on to change."""
    told = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    del told["lost"]  # there is a guest, else there were no cut
    told |= {"env": dict(state.env), "path": list(state.path), "steps": dict(state.steps)}
    return {**told, "checkouts": sorted(state.checkouts)}


def _command(told: Mapping[str, Any]) -> Command:
    return Command(told["name"], told["run"], Position(**told["position"]))


def _tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
