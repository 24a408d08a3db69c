"""At the limit of sessions: refused at once, or waiting one's turn."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.place import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.place import Place, Running

ONE = {"CLOCHE_SESSION_MAX_CONCURRENT": "1"}


@contextlib.contextmanager
def occupied(place: Place) -> Iterator[Running]:
    """A run that has the only place until it is interrupted."""
    place.steps("- run: echo up; sleep inf", name="long.yml")
    place.steps("- run: echo done", name="short.yml")
    with place.events("long", env=ONE) as running:
        running.wait_for("step.output", text="up")
        yield running


def make_room(running: Running) -> None:
    running.signal(signal.SIGINT)
    assert running.end().code == 130


def test_who_waits_is_told_its_place_and_gets_its_turn(place: Place) -> None:
    with occupied(place) as first, place.events("--wait", "short", env=ONE) as second:
        assert second.wait_for("session.waiting")["place"] == 1
        with place.events("--wait=5m", "short", env=ONE) as third:
            assert third.wait_for("session.waiting")["place"] == 2
            refused = place.run("run", "short", env=ONE)
            assert refused.code == 3
            assert "the limit of 1 concurrent session is reached" in refused.stderr
            assert "2 more waiting for a place" in refused.stderr
            make_room(first)
            ended = second.end(), third.end()
    assert [one.code for one in ended] == [0, 0]
    starts = [one.one("session.created")["at"] for one in ended]
    assert starts == sorted(starts)
    kinds = [event["type"] for event in ended[0].events]
    assert kinds.index("session.waiting") < kinds.index("session.created")


def test_the_deadline_passes(place: Place) -> None:
    with occupied(place) as first:
        refused = place.run("run", "--wait=1s", "short", env=ONE)
        assert refused.code == 3
        assert "was reached for 1.0 s" in refused.stderr
        assert "waiting for a place: next in the line (1 session at most" in refused.stdout
        make_room(first)


def test_who_is_interrupted_or_killed_while_waiting_holds_up_nobody(place: Place) -> None:
    wait = {**ONE, "CLOCHE_SESSION_WAIT": "10m"}
    with occupied(place) as first:
        with place.events("short", env=wait) as second, place.events("short", env=wait) as third:
            for one in (second, third):
                one.wait_for("session.waiting")
            second.signal(signal.SIGINT)
            ended = second.end()
            assert (ended.code, ended.conclusion) == (130, "cancelled")
            third.kill()
            third.process.wait(DEADLINE)
        with place.events("short", env=wait) as fourth:
            assert fourth.wait_for("session.waiting")["place"] == 1
            make_room(first)
            assert fourth.end().code == 0
    assert list((place.folder / "runtime/cloche/sessions").iterdir()) == []


@pytest.mark.sandbox
def test_runs_of_a_daemon_stand_in_the_same_line(sandbox: Place) -> None:
    with Daemon(sandbox), occupied(sandbox) as first, sandbox.events("--wait", "short", env=ONE) as second:
        assert second.wait_for("session.waiting")["place"] == 1
        with sandbox.events("--wait", "short", env={**ONE, "CLOCHE_NO_DAEMON": "1"}) as third:
            assert third.wait_for("session.waiting")["place"] == 2
            third.signal(signal.SIGINT)
            assert third.end().code == 130
        make_room(first)
        assert second.end().code == 0
