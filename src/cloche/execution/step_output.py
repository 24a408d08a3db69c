"""A step's output as it arrives: text is passed on, commands are obeyed, all within bounds."""

from __future__ import annotations

import posixpath
from collections import Counter
from typing import TYPE_CHECKING

from cloche.execution.line_commands import Assign, CommandReader, Group, Issue, Mask, Output, command_failed
from cloche.execution.line_stream import LineStream
from cloche.execution.masking import TooManyMasksError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.execution.line_commands import Effect
    from cloche.execution.line_stream import Text
    from cloche.execution.masking import Masker
    from cloche.execution.output_limit import OutputLimit
    from cloche.execution.publisher import StepPublisher

MAX_ANNOTATIONS = 100
"""Annotations of one level that a step can make; further ones are text, as GitHub's are after ten."""

MAX_ASSIGNED = 16 * 1024 * 1024
"""Characters that a step can assign with commands in its output."""


class StepOutputReader:
    """Reads what one step writes, as far as ``limit`` lets it, and tells of it.

    In annotations, paths lose the ``workspace``.
    """

    def __init__(
        self,
        publisher: StepPublisher,
        masker: Masker,
        workspace: str,
        commands: CommandReader,
        limit: OutputLimit | None = None,
    ) -> None:
        self._limit = limit
        self._publisher = publisher
        self._masker = masker
        self._workspace = workspace
        self._commands = commands
        self._lines = LineStream(masker)
        self._annotations: Counter[str] = Counter()
        self._left = MAX_ASSIGNED
        self.assigned: list[Assign] = []
        self.failed = False

    def feed(self, chunk: bytes) -> None:
        """Take bytes as they come."""
        kept = self._limit.take(chunk, self._publisher) if self._limit else chunk
        self._take(self._lines.feed(kept))

    def close(self) -> None:
        """Take the end of the output."""
        self._take(self._lines.close())

    def report(self, issues: Iterator[Issue]) -> None:
        """Tell of issues that come from elsewhere than the output."""
        for issue in issues:
            self._issue(issue)

    def _take(self, texts: Iterator[Text]) -> None:
        for text, whole in texts:
            if not whole:
                self._obey(Output(text))
                continue
            for effect in self._commands.read(text):
                self._obey(effect)

    def _obey(self, effect: Effect) -> None:
        match effect:
            case Output(text=text):
                if not self._masker.full:
                    self._publisher.output(text)
            case Group(title=title):
                self._publisher.group(title)
            case Issue():
                if not self._masker.full:
                    self._issue(effect)
            case Mask(value=value):
                self._mask(value)
            case Assign():
                self._assign(effect)

    def _issue(self, issue: Issue) -> None:
        self.failed = self.failed or issue.failed
        self._annotations[issue.level] += 1
        if self._annotations[issue.level] <= MAX_ANNOTATIONS:
            self._publisher.issue(issue, self._in_repository(issue.file))
        elif issue.level != "debug":
            self._obey(Output(f"##[{issue.level}]{issue.message}\n"))

    def _in_repository(self, file: str | None) -> str | None:
        """Return a file's path as the repository names it, when it is in the workspace."""
        if file and file.startswith(f"{self._workspace}/"):
            return posixpath.relpath(file, self._workspace)
        return file or None

    def _mask(self, value: str) -> None:
        try:
            self._masker.add(value, bounded=True)
        except TooManyMasksError as error:
            self.report(command_failed("command 'add-mask'", f"{error} No more output of this run is shown."))

    def _assign(self, assign: Assign) -> None:
        size = len(assign.name) + len(assign.value)
        if size <= self._left:
            self.assigned.append(assign)
        elif self._left >= 0:
            limit = f"A step can assign {MAX_ASSIGNED >> 20} MiB in its output, no more."
            self.report(command_failed(f"command that sets '{assign.name[:100]}'", limit))
        self._left -= size
