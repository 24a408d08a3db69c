"""The process that waits to become a sandbox's agent has an owner, whether a sandbox is wanted or not."""

from __future__ import annotations

import pytest

from cloche.errors import ProviderError
from cloche.vm.sandbox import agent


def test_the_first_taker_gets_the_process_that_was_started_early() -> None:
    with agent.started_early():
        first, second = agent.take(), agent.take()
        assert first.process.poll() is None
        assert first.process.pid != second.process.pid
    assert first.process.poll() is None  # it is the taker's now
    for one in (first, second):
        one.end()
        assert one.process.returncode == -9


def test_what_nobody_took_ends_with_the_block() -> None:
    with agent.started_early():
        (waiting,) = agent._early
    assert waiting.process.returncode == -9
    assert waiting.channel.fileno() == -1
    assert agent._early == []


def test_a_process_that_is_told_of_no_sandbox_ends_without_a_word() -> None:
    waiting = agent.AgentProcess()
    _, said = waiting.process.communicate(timeout=30)  # closes its input
    assert said == b""
    assert waiting.process.returncode == 0
    waiting.channel.close()


def test_telling_a_process_that_has_died_is_no_error() -> None:
    dead = agent.AgentProcess()
    dead.process.kill()
    dead.process.wait()
    dead.become({})
    dead.end()


def test_that_none_can_be_started_is_told_when_one_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with agent.started_early(), pytest.raises(ProviderError, match="setpriv is not installed"):
        agent.take()
