from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.cli.curtain import Curtain
from cloche.events import StepOutput

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from cloche.events import Event


class Shown:
    """A reporter that writes down what it is told, and whether it may write."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.append("left")

    def __call__(self, event: Event, /) -> None:
        assert isinstance(event, StepOutput)
        self.lines.append(event.text if len(event.text) < 100 else "much")

    def log(self, line: str) -> None:
        self.lines.append(line)

    def rest(self) -> None:
        self.lines.append("rest")

    def wake(self) -> None:
        self.lines.append("wake")


def said(text: str) -> StepOutput:
    return StepOutput(run_id="run-1", at=0.0, job="job", leg=None, step=1, text=text)


def test_behind_the_curtain_everything_waits_in_order() -> None:
    shown = Shown()
    with Curtain(shown) as curtain:
        curtain(said("one"))
        with curtain.down():
            curtain(said("two"))
            curtain.log("three")
            assert shown.lines == ["one", "rest"]
        curtain(said("four"))
    assert shown.lines == ["one", "rest", "wake", "two", "three", "four", "left"]


def test_what_waits_is_bounded_and_what_is_left_out_is_told() -> None:
    shown = Shown()
    curtain = Curtain(shown)
    with curtain.down():
        for _ in range(6):
            curtain(said("x" * 1024 * 1024))
        curtain.log("kept")
    assert shown.lines[2:6] == ["much"] * 4
    assert shown.lines[6:] == ["kept", "cloche: 2 pieces of steps' output were left out meanwhile"]
    with curtain.down():
        curtain(said("again"))
    assert shown.lines[-1] == "again"
