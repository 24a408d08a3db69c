"""What the tests of this room share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .agents import AgentProcess, PlainMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Start an agent whose job roots are as told. Whatever the test does, the agent must end as one should."""
    started: list[AgentProcess] = []

    def start(**maker: object) -> AgentProcess:
        folder = tmp_path / f"agent{len(started)}"
        folder.mkdir()
        started.append(AgentProcess(PlainMaker(folder, **maker)))  # type: ignore[arg-type] # by name, as given
        return started[-1]

    yield start
    for agent in started:
        code, said = agent.end()
        assert "Traceback" not in said, said
        assert code in {0, 1}


@pytest.fixture
def agent(start_agent: Callable[..., AgentProcess]) -> AgentProcess:
    """An agent that has shaken hands."""
    started = start_agent()
    started.request({"t": "hello", "v": 1})
    return started
