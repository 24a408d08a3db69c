from __future__ import annotations

import os
import signal
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloche.guest import protocol
from cloche.guest.agent import Agent
from cloche.guest.jobs import Job
from cloche.guest.link import Link
from cloche.guest.streams import Stream, make_pipes

from .agents import BOOT_ID, DEADLINE, PATH, AgentProcess, Names, PlainMaker

if TYPE_CHECKING:
    from collections.abc import Callable

    StartAgent = Callable[..., AgentProcess]

BASH = "/bin/bash"


def script(text: str, stream: int = 1, /, **fields: object) -> protocol.Header:
    return {
        "t": "exec", "s": stream, "job": "j", "argv": [BASH, "-c", text], "env": {"PATH": PATH}, "cwd": "/",
        **fields,
    }  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        os.sched_yield()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.fixture
def job(agent: AgentProcess) -> AgentProcess:
    """An agent with a job root ``j``."""
    assert agent.request({"t": "job.open", "job": "j", "hostname": "h"}) == {"t": "reply", "r": 1}
    return agent


# Requests


def test_the_handshake_tells_what_the_guest_is(start_agent: StartAgent) -> None:
    hello = start_agent().request({"t": "hello", "v": 1, "r": 7})
    assert hello == {
        "t": "reply",
        "r": 7,
        "v": protocol.VERSION,
        "kernel": os.uname().release,
        "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def test_another_version_is_refused_by_name(start_agent: StartAgent) -> None:
    answer = start_agent().request({"t": "hello", "v": 99})
    assert answer["error"] == "the agent speaks version 1, the host 99"


def test_a_second_root_of_the_same_name_is_refused(job: AgentProcess) -> None:
    answer = job.request({"t": "job.open", "job": "j", "hostname": "h"})
    assert answer["error"] == "job.open: there is a job root 'j' already"


def test_a_root_that_cannot_be_made_is_an_error_and_the_agent_lives(start_agent: StartAgent) -> None:
    agent = start_agent(limit=1)
    agent.request({"t": "job.open", "job": "a", "hostname": "h"})
    answer = agent.request({"t": "job.open", "job": "b", "hostname": "h"})
    assert answer["error"] == "job.open: a job root could not be made: No space left on device"
    assert agent.request({"t": "ping"}) == {"t": "reply", "r": 1}


def test_prepared_roots_wait_to_be_opened(start_agent: StartAgent) -> None:
    agent = start_agent(limit=2)
    assert agent.request({"t": "prepare", "roots": 2}) == {"t": "reply", "r": 1}
    assert len(agent.children()) == 2
    for name in "ab":
        assert "error" not in agent.request({"t": "job.open", "job": name, "hostname": "h"})
    assert len(agent.children()) == 2


# Programs


def test_a_program_from_start_to_end(job: AgentProcess) -> None:
    job.send(script("echo out; echo err >&2; exit 3"))
    output, status = job.until_exit(1)
    assert output == b"out\nerr\n"
    assert (status["code"], status["signal"]) == (3, None)
    assert {"utime", "stime", "rss", "empty"} <= status.keys()


def test_the_boot_id_comes_with_the_exit_once_the_guest_is_its_own(job: AgentProcess) -> None:
    job.send(script("true"))
    assert "boot_id" not in job.until_exit(1)[1]
    answer = job.request({"t": "adopt", "hostname": "h", "machine_id": "m", "time": 1.0})
    assert answer["boot_id"] == BOOT_ID
    job.send(script("true", 2))
    assert job.until_exit(2)[1]["boot_id"] == BOOT_ID


@pytest.mark.parametrize(
    ("fields", "code", "error"),
    [
        ({"argv": ["/no/such/program"]}, 127, "/no/such/program"),
        ({"argv": ["/etc/passwd"]}, 126, "/etc/passwd"),
        ({"argv": []}, 127, "no program"),
        ({"cwd": "/no/such/folder"}, 126, "/no/such/folder"),
        ({"job": "another"}, 126, "no job root 'another'"),
    ],
)
def test_programs_that_cannot_start(
    job: AgentProcess, fields: dict[str, object], code: int, error: str
) -> None:
    job.send(script("true", **fields))
    output, status = job.until_exit(1)
    assert (output, status["code"]) == (b"", code)
    assert error in str(status["error"])


def test_files_go_in_and_come_out(job: AgentProcess, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("in", "out", "empty", "missing", "folder")]
    (tmp_path / "folder").mkdir()
    text = f"cat {names[0]}; printf 123 > {names[1]}; : > {names[2]}"
    job.send(script(text, files=[[names[0], 4]], collect=names[1:]), b"hey\n")
    frames = [job.receive() for _ in range(3)]
    assert frames[0] == ({"t": "data", "s": 1}, b"hey\n")
    assert frames[1] == ({"t": "file", "s": 1, "file": 0, "cut": False}, b"123")
    assert (frames[2][0]["t"], frames[2][0]["empty"]) == ("exit", [1])


def test_a_large_file_is_cut(job: AgentProcess, tmp_path: Path) -> None:
    large = str(tmp_path / "large")
    job.send(script(f"head -c {protocol.MAX_COLLECTED + 1} /dev/zero > {large}", collect=[large]))
    header, payload = job.receive()
    assert (header["cut"], len(payload)) == (True, protocol.MAX_COLLECTED)


def test_output_stops_at_the_credit_and_goes_on_with_more(job: AgentProcess) -> None:
    total = 3 * protocol.WINDOW
    job.send(script(f"head -c {total} /dev/zero"))
    received = 0
    while received < protocol.WINDOW:
        received += len(job.receive()[1])
    assert received == protocol.WINDOW
    assert job.silence() == []
    job.send({"t": "credit", "s": 1, "n": total})
    output, status = job.until_exit(1)
    assert (received + len(output), status["code"]) == (total, 0)


def test_input_is_credited_as_it_is_read_and_ends(job: AgentProcess) -> None:
    job.send(script("cat", stdin=True))
    job.send({"t": "data", "s": 1}, b"hello")
    frames = [job.receive() for _ in range(2)]
    assert ({"t": "credit", "s": 1, "n": 5}, b"") in frames
    assert ({"t": "data", "s": 1}, b"hello") in frames
    job.send({"t": "eof", "s": 1})
    assert job.until_exit(1)[1]["code"] == 0


def test_input_ends_though_another_root_was_made_meanwhile(job: AgentProcess) -> None:
    job.send(script("cat; echo end", stdin=True))
    job.request({"t": "job.open", "job": "other", "hostname": "h"})
    job.send({"t": "eof", "s": 1})
    assert job.until_exit(1)[0] == b"end\n"


def test_a_program_has_no_descriptor_of_the_agents(job: AgentProcess) -> None:
    job.send(script("true", stdin=True))
    job.send(script("ls /proc/self/fd", 2))
    assert set(job.until_exit(2)[0].split()) == {b"0", b"1", b"2", b"3"}


def test_a_terminal(job: AgentProcess) -> None:
    job.send(script("[ -t 0 ] && stty -echo && stty size; read line; echo got $line", tty=[31, 97]))
    assert job.receive() == ({"t": "data", "s": 1}, b"31 97\r\n")
    job.send({"t": "data", "s": 1}, b"it\n")
    output, status = job.until_exit(1)
    assert (output, status["code"]) == (b"got it\r\n", 0)


def test_the_last_words_on_a_terminal_are_never_lost(job: AgentProcess) -> None:
    for stream in range(1, 11):
        job.send(script("head -c 5000 /dev/zero | tr '\\0' x; printf end", stream, tty=[24, 80]))
        output, _ = job.until_exit(stream)
        assert (len(output), output[-3:]) == (5003, b"end")


@pytest.mark.parametrize("terminal", [None, [24, 80]])
def test_a_resize_is_never_an_error(job: AgentProcess, terminal: list[int] | None) -> None:
    job.send(script("read line", stdin=True, tty=terminal))
    job.send({"t": "resize", "s": 1, "rows": 50, "columns": 132})
    job.send({"t": "data", "s": 1}, b"\n")
    assert job.until_exit(1)[1]["code"] == 0
    job.send({"t": "resize", "s": 1, "rows": 50, "columns": 132})
    assert job.silence() == []


# Signals


def test_a_signal_ends_a_program(job: AgentProcess) -> None:
    job.send(script("echo up; sleep 1000"))
    assert job.receive()[1] == b"up\n"
    job.send({"t": "signal", "s": 1, "n": signal.SIGTERM})
    _, status = job.until_exit(1)
    assert (status["code"], status["signal"]) == (143, signal.SIGTERM)


def test_a_signal_right_behind_the_start_is_not_lost(job: AgentProcess) -> None:
    for stream in range(1, 11):
        start = protocol.encode(script("sleep 1000", stream))
        job.socket.sendall(start + protocol.encode({"t": "signal", "s": stream, "n": signal.SIGKILL}))
        assert job.until_exit(stream)[1]["signal"] == signal.SIGKILL


def test_messages_to_a_stream_that_has_ended_are_nothing(job: AgentProcess) -> None:
    job.send(script("true"))
    job.until_exit(1)
    for message in (
        {"t": "signal", "s": 1, "n": signal.SIGTERM},
        {"t": "credit", "s": 1, "n": 10},
        {"t": "data", "s": 1},
        {"t": "eof", "s": 1},
    ):
        job.send(message)
    assert job.silence() == []


# Endings


def test_a_closed_root_is_gone_with_its_init_and_its_folder(job: AgentProcess, tmp_path: Path) -> None:
    (folder,) = (tmp_path / "agent0").iterdir()
    job.send(script("echo up; cat", stdin=True))
    assert job.receive()[1] == b"up\n"
    assert job.request({"t": "job.close", "job": "j"}) == {"t": "reply", "r": 1}
    job.send(script("true", 2))
    assert job.until_exit(2)[1]["error"] == "there is no job root 'j'"
    wait_until(lambda: not folder.exists() and job.silence() == [] and job.children() == [])


def test_closing_what_is_not_open_is_no_error(agent: AgentProcess) -> None:
    assert agent.request({"t": "job.close", "job": "never"}) == {"t": "reply", "r": 1}


def test_a_root_whose_init_dies_takes_its_programs_along_and_no_other(job: AgentProcess) -> None:
    job.request({"t": "job.open", "job": "other", "hostname": "h"})
    job.send(script("echo up; read line", stdin=True))
    assert job.receive()[1] == b"up\n"
    job.send(script("kill -9 $PPID", 2))
    ends = {str(frame[0]["s"]): frame[0] for frame in (job.receive(), job.receive())}
    assert ends["1"]["error"] == ends["2"]["error"] == "the job's root was destroyed"
    assert job.request({"t": "job.close", "job": "j"}) == {"t": "reply", "r": 1}
    job.send(script("echo fine", 3, job="other"))
    assert job.until_exit(3)[0] == b"fine\n"


def test_a_root_that_cannot_take_its_name_is_an_error_and_gone(start_agent: StartAgent) -> None:
    def serve(end: socket.socket) -> NoReturn:
        end.recv(1 << 20)
        end.sendall(protocol.encode({"t": "assigned", "error": "disk full"}))
        end.recv(1)
        os._exit(0)

    agent = start_agent(serve=serve)
    answer = agent.request({"t": "job.open", "job": "j", "hostname": "h"})
    assert answer["error"] == "disk full"
    agent.send(script("true"))
    assert agent.until_exit(1)[1]["error"] == "there is no job root 'j'"
    wait_until(lambda: agent.silence() == [] and agent.children() == [])


def test_a_root_that_dies_while_it_is_opened_is_an_error(start_agent: StartAgent) -> None:
    agent = start_agent(serve=lambda _end: os._exit(1))
    answer = agent.request({"t": "job.open", "job": "j", "hostname": "h"})
    assert answer["error"] == "the job's root was destroyed"


def test_many_programs_leave_nothing_in_the_agent(job: AgentProcess) -> None:
    def run(streams: range) -> None:
        for stream in streams:
            job.send(script("true", stream, stdin=True))
            job.until_exit(stream)

    before = job.descriptors()
    run(range(1, 40))
    job.silence()
    assert job.descriptors() == before


def test_what_background_processes_hold_is_let_go_when_they_end(job: AgentProcess) -> None:
    before = job.descriptors()
    holders = []
    for stream in range(1, 6):
        job.send(script("sleep 1000 & echo $!", stream))
        holders.append(int(job.until_exit(stream)[0]))
    assert job.descriptors() == before + len(holders)
    for pid in holders:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: job.silence() == [] and job.descriptors() == before)
    job.send(script("true", 6))  # with which the agent forgets them
    job.until_exit(6)


def test_streams_that_nobody_holds_are_not_remembered(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    agent = Agent(Link(theirs.fileno(), theirs), PlainMaker(tmp_path), Names())
    job = Job(1, 0, agent._link, theirs, str(tmp_path), None)
    agent._jobs["j"] = job
    held, writer = held_stream(agent)
    for number in range(100):
        agent.exited(Stream(agent, number, "j"))
    agent.exited(held)
    assert job.lingering == [held]
    held.close()
    agent.exited(Stream(agent, 100, "j"))
    assert job.lingering == []
    os.close(writer)
    ours.close()
    theirs.close()


def held_stream(agent: Agent) -> tuple[Stream, int]:
    stream = Stream(agent, 1000, "j")
    (writer,) = make_pipes(stream, {"t": "exec"})
    return stream, writer


def test_terminals_that_nobody_asked_for_are_closed(start_agent: StartAgent) -> None:
    def serve(count: int) -> Callable[[socket.socket], NoReturn]:
        def init(end: socket.socket) -> NoReturn:
            end.recv(1 << 20)
            link = Link(end.fileno(), end)
            for _ in range(count):
                link.send({"t": "terminal", "s": 99}, fds=[os.dup(0)])
            link.send({"t": "assigned"})
            os.set_blocking(end.fileno(), True)
            end.recv(1)
            os._exit(0)

        return init

    counts = []
    for terminals in (0, 5):
        agent = start_agent(serve=serve(terminals))
        agent.request({"t": "job.open", "job": "j", "hostname": "h"})
        counts.append(agent.descriptors())
    assert counts[0] == counts[1]


def test_the_agent_ends_with_its_host_and_its_inits_with_it(start_agent: StartAgent) -> None:
    agent = start_agent()
    agent.request({"t": "prepare", "roots": 2})
    inits = agent.children()
    code, said = agent.end()
    assert (code, said) == (0, "")
    wait_until(lambda: not any(is_running(pid) for pid in inits))


# Hosts that talk nonsense


@pytest.mark.parametrize(
    "message",
    [
        {"t": "hello"},
        {"t": "hello", "r": "1"},
        {"t": "unheard-of", "s": 1},
        {"t": "exec"},
        {"t": "exec", "s": -1, "job": "j"},
        {"t": "exec", "s": 2},
        {"t": "exec", "s": 1, "job": "j"},
        {"t": "credit", "s": 1},
        {"t": "credit", "s": 1, "n": -5},
        {"t": "credit", "s": 1, "n": 2**64},
        {"t": "signal", "s": 1, "n": 65},
        {"t": "signal", "s": 1, "n": True},
        {"t": "resize", "s": 1, "rows": 1e9, "columns": 1},
        {"t": "resize", "s": 1, "rows": 100_000, "columns": 1},
        {"t": "job.open", "r": 1, "job": 5, "hostname": "h"},
        {"t": "job.open", "r": 1, "job": "x", "hostname": "h", "memory": "all"},
        {"t": "prepare", "r": 1, "roots": 1_000_000},
        {"t": "adopt", "r": 1, "hostname": "h", "machine_id": "m", "time": "now"},
    ],
    ids=str,
)
def test_a_message_that_makes_no_sense_ends_the_agent_with_one_line(
    job: AgentProcess, start_agent: StartAgent, message: protocol.Header
) -> None:
    job.send(script("read line", stdin=True))  # stream 1 is in use
    job.send(message)
    job.hear_out()
    job.socket.close()
    said = os.read(job.said, 65536).decode()
    assert said.startswith("the host broke the channel's protocol: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("noise", [b"\xff" * 64, struct.pack("!II", 2, 0) + b"[]"])
def test_noise_ends_the_agent(agent: AgentProcess, noise: bytes) -> None:
    agent.socket.sendall(noise)
    with pytest.raises(EOFError):
        agent.receive()


KINDS = (
    "hello", "adopt", "prepare", "ping", "job.open", "job.close", "exec", "data", "eof", "credit", "signal",
    "resize", "reply", "exit", "",
)  # fmt: skip
small = st.integers(0, 3)
scalars = st.none() | st.booleans() | small | st.integers() | st.floats() | st.text(max_size=5)
anything = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)
sensible = {
    "t": st.sampled_from(KINDS),
    "r": small,
    "s": small,
    "n": small,
    "v": st.just(1),
    "roots": small,
    "rows": small,
    "columns": small,
    "job": st.sampled_from("ab"),
    "hostname": st.just("h"),
    "machine_id": st.just("m"),
    "time": st.just(1.5),
    "memory": st.none() | small,
    "pids": st.none() | small,
    "stdin": st.booleans(),
    "tty": st.none() | st.just([24, 80]),
    "builtin": st.none() | st.sampled_from(["tar", "nonsense"]),
}


@st.composite
def messages(draw: st.DrawFn) -> tuple[protocol.Header, bytes]:
    """A message that makes sense but, now and then, for a field."""
    header = {key: draw(values) for key, values in sensible.items()}
    if draw(st.integers(0, 4)) == 0:
        key = draw(st.sampled_from(sorted(header)))
        if draw(st.booleans()):
            del header[key]
        else:
            header[key] = draw(anything)
    header.setdefault("t", "")
    return header, draw(st.binary(max_size=10))


def serve_nothing(end: socket.socket) -> NoReturn:
    """An init that ends every program at once, and runs none: its host here makes things up."""
    link = Link(end.fileno(), end)
    while True:
        os.set_blocking(end.fileno(), True)
        try:
            frames = link.receive()
        except Exception:  # noqa: BLE001 - gone
            os._exit(0)
        for header, _ in frames:
            if header["t"] == "assign":
                link.send({"t": "assigned"})
            elif header["t"] == "exec":
                link.send({"t": "exit", "s": header["s"], "code": 0})
        while link.fds:
            os.close(link.fds.popleft())


@settings(
    max_examples=settings().max_examples * 3 // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(messages(), max_size=12), st.binary(max_size=20))
def test_no_host_can_make_the_agent_stumble(frames: list[tuple[protocol.Header, bytes]], tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        agent = AgentProcess(PlainMaker(Path(folder), serve_nothing))
        try:
            for header, payload in frames:
                agent.send(header, payload)
            agent.socket.sendall(tail)
            agent.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        agent.hear_out()
        code, said = agent.end()
    assert "Traceback" not in said, said
    assert (code, said.count("\n")) in {(0, 0), (1, 1)}


# Jobs that talk nonsense


def wicked(frames: list[bytes]) -> Callable[[socket.socket], NoReturn]:
    """An init in whose place somebody sends ``frames``, then hangs up."""

    def serve(end: socket.socket) -> NoReturn:
        end.recv(1 << 20)  # the assignment
        for frame in frames:
            end.sendall(frame)
        end.shutdown(socket.SHUT_WR)
        while end.recv(1 << 20):
            pass
        os._exit(0)

    return serve


job_fields = {
    "t": st.sampled_from(["assigned", "terminal", "file", "exit", "data", "ready", "nonsense"]),
    "s": st.just(1) | anything,
    "code": small | anything,
    "file": small | anything,
}
job_frames = st.fixed_dictionaries(job_fields).map(lambda header: protocol.encode(dict(header), b"x"))


@settings(
    max_examples=settings().max_examples * 3 // 5, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(job_frames | st.binary(max_size=20), max_size=6))
def test_no_job_can_make_the_agent_stumble(frames: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        agent = AgentProcess(PlainMaker(Path(folder), wicked(frames)))
        agent.request({"t": "hello", "v": 1})
        agent.send({"t": "job.open", "job": "j", "hostname": "h", "r": 5})
        agent.send(script("true"))
        while agent.receive()[0].get("r") != 5:
            pass
        agent.silence()
        code, said = agent.end()
    assert "Traceback" not in said, said
    assert code == 0
