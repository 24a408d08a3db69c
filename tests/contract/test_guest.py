from __future__ import annotations

import asyncio
import hashlib
import io
import signal
import tarfile
from typing import TYPE_CHECKING

import pytest

from cloche.errors import GuestError
from cloche.vm.guest import MAX_COLLECTED, ExecSpec, ExitStatus, JobRootSpec, TtySize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cloche.vm.guest import JobRoot, Process
    from cloche.vm.provider import Vm

    from .conftest import Run

    Script = Callable[..., ExecSpec]

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEADLINE = 30
LARGE = 8 * 1024 * 1024
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def first_line(output: AsyncIterator[bytes]) -> bytes:
    line = b""
    async for chunk in output:
        line += chunk
        if b"\n" in line:
            break
    return line


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def end(process: Process) -> ExitStatus:
    async with asyncio.timeout(DEADLINE):
        async for _ in process.output():
            pass
        return await process.wait()


# How programs end


@pytest.mark.parametrize("code", [0, 1, 42, 255])
async def test_exit_code(run: Run, code: int) -> None:
    _, status = await run(f"exit {code}")
    assert (status.code, status.signal, status.error) == (code, None, None)


async def test_a_program_that_is_not_there(run: Run) -> None:
    output, status = await run(argv=["/no/such/program"])
    assert status.code == 127
    assert status.error
    assert output == b""


async def test_a_program_that_path_does_not_lead_to(run: Run) -> None:
    _, status = await run(argv=["no-such-program"])
    assert status.code == 127
    assert status.error


async def test_a_program_that_is_not_executable(run: Run) -> None:
    _, status = await run(argv=["/tmp/data"], files={"/tmp/data": b"echo no\n"})
    assert status.code == 126
    assert status.error


async def test_a_working_directory_that_is_not_there(run: Run) -> None:
    _, status = await run("true", cwd="/no/such/folder")
    assert status.code in {126, 127}
    assert status.error is not None
    assert "/no/such/folder" in status.error


async def test_a_shell_reports_its_own_missing_programs(run: Run) -> None:
    output, status = await run("no-such-program")
    assert status.code == 127
    assert status.error is None
    assert b"no-such-program" in output
    assert b"not found" in output


async def test_death_by_signal_is_128_and_its_number(run: Run) -> None:
    _, status = await run("kill -9 $$")
    assert (status.code, status.signal) == (137, signal.SIGKILL)


async def test_bash_e_stops_at_the_first_failure(run: Run) -> None:
    files = {"/tmp/work/step.sh": b"echo one\nfalse\necho two\n"}
    output, status = await run(argv=["/bin/bash", "-e", "/tmp/work/step.sh"], files=files)
    assert (output, status.code) == (b"one\n", 1)


# What programs see


async def test_output_and_error_arrive_merged_in_order(run: Run) -> None:
    output, _ = await run("echo 1; echo 2 >&2; echo 3; echo 4 >&2")
    assert output == b"1\n2\n3\n4\n"


async def test_output_is_bytes(run: Run) -> None:
    output, _ = await run(r"printf '\377\200a'")
    assert output == b"\xff\x80a"


async def test_the_environment_is_complete(run: Run) -> None:
    output, status = await run(argv=["env"], env={"PATH": PATH, "GREETING": "hi there"})
    assert status.code == 0
    assert sorted(output.decode().splitlines()) == ["GREETING=hi there", f"PATH={PATH}"]


async def test_the_environment_keeps_any_text(run: Run) -> None:
    output, _ = await run('printf %s "$TEXT"', env={"PATH": PATH, "TEXT": "two\nlines, ünïcode $x 'q'"})
    assert output.decode() == "two\nlines, ünïcode $x 'q'"


async def test_arguments_arrive_as_they_are(run: Run) -> None:
    output, _ = await run(argv=["printf", "%s|", "a b", "", "*", "$HOME", "é"])
    assert output.decode() == "a b||*|$HOME|é|"


async def test_working_directory(run: Run) -> None:
    output, _ = await run("mkdir -p /tmp/work/deep; cd /tmp/work/deep; pwd")
    assert output == b"/tmp/work/deep\n"
    assert (await run("pwd", cwd="/tmp/work/deep"))[0] == b"/tmp/work/deep\n"


async def test_the_job_has_the_hostname_asked_for(vm: Vm, run: Run) -> None:
    async with await vm.guest.open_job(JobRootSpec("named", hostname="lily")) as root:
        output, _ = await run("uname -n", root=root)
    assert output == b"lily\n"


async def test_without_stdin_the_input_is_empty(run: Run) -> None:
    output, status = await run("cat; echo end")
    assert (output, status.code) == (b"end\n", 0)


@pytest.mark.real_only
@pytest.mark.many_users
async def test_users(run: Run) -> None:
    assert (await run("id -un"))[0] == b"runner\n"
    assert (await run("id -u", user="root"))[0] == b"0\n"


@pytest.mark.real_only
async def test_an_unknown_user_is_an_error_of_the_program(run: Run) -> None:
    _, status = await run("true", user="nobody-we-know")
    assert status.code in {126, 127}
    assert status.error is not None
    assert "nobody-we-know" in status.error


# Files that go in and come out with a program


async def test_a_root_begins_with_its_first_files_and_folders(vm: Vm, run: Run) -> None:
    spec = JobRootSpec(
        "first",
        folders=("/home/runner/work/some/some", "/tmp/empty"),
        files={"/home/runner/work/_temp/event.json": b'{"a": 1}', "/tmp/binary": bytes(range(256))},
    )
    async with await vm.guest.open_job(spec) as root:
        output, status = await run(
            "cat /home/runner/work/_temp/event.json; echo; ls /tmp/empty; pwd", root=root, cwd=spec.folders[0]
        )
        assert (output, status.code) == (b'{"a": 1}\n/home/runner/work/some/some\n', 0)
        _, status = await run(
            "echo mine > here; echo mine > /home/runner/work/_temp/event.json", root=root, cwd=spec.folders[0]
        )
        assert status.code == 0
        _, status = await run("true", root=root, collect=["/tmp/binary"])
        assert status.collected["/tmp/binary"].content == bytes(range(256))


async def test_first_files_that_cannot_be_written_are_an_error(vm: Vm) -> None:
    with pytest.raises(GuestError, match="made ready"):
        await vm.guest.open_job(JobRootSpec("first", files={"/tmp": b"a folder is there"}))


async def test_files_are_there_before_the_program(run: Run) -> None:
    files = {"/tmp/new/folders/a.txt": b"content\n", "/tmp/empty": b""}
    output, status = await run(
        "cat /tmp/new/folders/a.txt && [ -f /tmp/empty ] && [ ! -s /tmp/empty ]", files=files
    )
    assert (output, status.code) == (b"content\n", 0)


async def test_files_replace_what_is_there(run: Run) -> None:
    await run("true", files={"/tmp/a": b"a longer content than the next\n"})
    output, _ = await run("cat /tmp/a", files={"/tmp/a": b"short\n"})
    assert output == b"short\n"


async def test_files_cannot_be_written_where_there_is_a_folder(run: Run) -> None:
    _, status = await run("echo never", files={"/tmp": b""})
    assert status.code in {126, 127}
    assert status.error


async def test_collected_files_come_back(run: Run) -> None:
    _, status = await run("printf 'a=1\\n' >> /tmp/env; exit 3", collect=["/tmp/env", "/tmp/missing", "/tmp"])
    assert status.code == 3
    assert {path: file.content for path, file in status.collected.items()} == {"/tmp/env": b"a=1\n"}


async def test_a_collected_file_has_a_limit(run: Run) -> None:
    _, status = await run(f"head -c {MAX_COLLECTED + 1} /dev/zero > /tmp/big", collect=["/tmp/big"])
    file = status.collected["/tmp/big"]
    assert (len(file.content), file.truncated) == (MAX_COLLECTED, True)


async def test_a_collected_file_of_just_the_limit_is_whole(run: Run) -> None:
    _, status = await run(f"head -c {MAX_COLLECTED} /dev/zero > /tmp/big", collect=["/tmp/big"])
    file = status.collected["/tmp/big"]
    assert (len(file.content), file.truncated) == (MAX_COLLECTED, False)


async def test_collected_files_come_back_from_what_was_killed(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("echo kept > /tmp/kept; echo up; sleep 1000", collect=["/tmp/kept"]))
    await first_line(process.output())
    await process.signal(signal.SIGKILL)
    assert (await end(process)).collected["/tmp/kept"].content == b"kept\n"


# Streams


async def test_stdin(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("cat; echo end", stdin=True))
    output = process.output()
    await process.write(b"one\n")
    assert await first_line(output) == b"one\n"
    await process.write(b"two\n")
    await process.close_stdin()
    assert b"".join([chunk async for chunk in output]) == b"two\nend\n"
    assert (await process.wait()).code == 0


async def test_much_input(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("wc -c", stdin=True))

    async def feed() -> None:
        for _ in range(LARGE // 65536):
            await process.write(bytes(65536))
        await process.close_stdin()

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(feed())
        output = b"".join([chunk async for chunk in process.output()])
    assert int(output) == LARGE


async def test_input_that_nobody_reads_any_more_is_no_error(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("exit 0", stdin=True))
    await end(process)
    async with asyncio.timeout(DEADLINE):
        await process.write(bytes(1024 * 1024))
        await process.close_stdin()


async def test_much_output_waits_for_a_slow_reader(root: JobRoot, script: Script, run: Run) -> None:
    process = await root.exec(script(f"head -c {LARGE} /dev/zero; echo > /tmp/written"))
    output = process.output()
    received = len(await anext(output))
    # Another program does the same work to its end meanwhile, so this one had every chance to run ahead.
    count, _ = await run(f"head -c {LARGE} /dev/zero | wc -c")
    assert int(count) == LARGE
    assert (await run("[ -e /tmp/written ]"))[1].code == 1
    longest = 0
    async with asyncio.timeout(DEADLINE):
        async for chunk in output:
            received += len(chunk)
            longest = max(longest, len(chunk))
    assert received == LARGE
    assert longest <= 65536
    assert (await process.wait()).code == 0


async def test_a_background_process_does_not_hold_the_output_open(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("sleep 1000 & echo $!"))
    async with asyncio.timeout(DEADLINE):
        pid = b"".join([chunk async for chunk in process.output()])
        assert (await process.wait()).code == 0
    alive = await root.exec(script(f"kill -0 {int(pid)}"))
    assert (await end(alive)).code == 0


async def test_programs_side_by_side_keep_their_output_apart(root: JobRoot, run: Run) -> None:
    results = await asyncio.gather(*(run(f"echo {number}; echo {number}") for number in range(6)))
    assert [output for output, _ in results] == [f"{n}\n{n}\n".encode() for n in range(6)]


# Signals


async def test_a_signal_reaches_the_whole_tree(root: JobRoot, script: Script, run: Run) -> None:
    process = await root.exec(script("sleep 1000 & echo $!; wait"))
    pid = int(await first_line(process.output()))
    await process.signal(signal.SIGTERM)
    status = await end(process)
    assert (status.code, status.signal) == (143, signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        await run(f"while kill -0 {pid} 2> /dev/null; do sleep 0.01; done")


async def test_a_program_may_handle_a_signal(root: JobRoot, script: Script) -> None:
    # Not one long sleep: bash waits for it, and between its fork and its exec the signal is lost on it.
    text = "trap 'echo caught; exit 7' INT; echo ready; while true; do sleep 0.05; done"
    process = await root.exec(script(text))
    output = process.output()
    assert await first_line(output) == b"ready\n"
    await process.signal(signal.SIGINT)
    async with asyncio.timeout(DEADLINE):
        assert b"".join([chunk async for chunk in output]) == b"caught\n"
        status = await process.wait()
    assert (status.code, status.signal) == (7, None)


async def test_a_program_may_ignore_a_signal_but_not_kill(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("trap '' INT TERM; echo ready; sleep 1000; echo not reached"))
    output = process.output()
    assert await first_line(output) == b"ready\n"
    await process.signal(signal.SIGINT)
    await process.signal(signal.SIGTERM)
    await process.signal(signal.SIGKILL)
    status = await end(process)
    assert (status.code, status.signal) == (137, signal.SIGKILL)


async def test_a_signal_to_what_has_ended_is_no_error(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("true"))
    status = await end(process)
    await process.signal(signal.SIGTERM)
    assert await process.wait() == status


# Terminals


async def test_a_terminal(root: JobRoot, script: Script) -> None:
    process = await root.exec(script("[ -t 0 ] && [ -t 1 ] && stty size", tty=TtySize(31, 97)))
    output = b"".join([chunk async for chunk in process.output()])
    assert output.split() == [b"31", b"97"]
    assert (await process.wait()).code == 0


async def test_without_one_there_is_none(run: Run) -> None:
    assert (await run("[ -t 0 ] || [ -t 1 ]"))[1].code == 1


async def test_a_terminal_is_resized(root: JobRoot, script: Script) -> None:
    text = "trap 'stty size; exit 0' WINCH; echo ready; sleep 1000 & wait"
    process = await root.exec(script(text, tty=TtySize(24, 80)))
    output = process.output()
    assert (await first_line(output)).strip() == b"ready"
    await process.resize(TtySize(50, 132))
    async with asyncio.timeout(DEADLINE):
        assert b"".join([chunk async for chunk in output]).split() == [b"50", b"132"]


# Trees of files


def archive(**files: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size, entry.mode = len(content), 0o640
            tar.addfile(entry, io.BytesIO(content))
        for name, kind, target_name, mode in [
            ("bin", tarfile.DIRTYPE, "", 0o750),
            ("link", tarfile.SYMTYPE, "bin/tool", 0o777),
        ]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, target_name, mode
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/tool")
        script = b"#!/bin/sh\necho tool\n"
        entry.size, entry.mode = len(script), 0o755
        tar.addfile(entry, io.BytesIO(script))
    return target.getvalue()


async def test_a_tree_goes_in_and_comes_out(root: JobRoot, run: Run) -> None:
    data = archive(a=b"alpha\n", deep__er__b=b"beta\n")
    await root.put("/tmp/in", chunks(data[:700], data[700:]))
    output, _ = await run("/tmp/in/link; cat /tmp/in/a /tmp/in/deep/er/b")
    assert output == b"tool\nalpha\nbeta\n"

    back = b"".join([chunk async for chunk in root.get("/tmp/in")])
    with tarfile.open(fileobj=io.BytesIO(back)) as tar:
        entries = {entry.name: entry for entry in tar}
        beta = tar.extractfile("in/deep/er/b")
        assert beta is not None
        assert beta.read() == b"beta\n"
    assert entries["in/a"].mode & 0o777 == 0o640
    assert entries["in/bin/tool"].mode & 0o777 == 0o755
    assert (entries["in/link"].issym(), entries["in/link"].linkname) == (True, "bin/tool")


async def test_one_file_comes_out_by_its_name(root: JobRoot, run: Run) -> None:
    await run("echo hi > /tmp/one")
    data = b"".join([chunk async for chunk in root.get("/tmp/one")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["one"]


async def test_a_tree_is_put_over_another(root: JobRoot, run: Run) -> None:
    await run("mkdir -p /tmp/in; echo old > /tmp/in/a; echo stays > /tmp/in/other")
    await root.put("/tmp/in", chunks(archive(a=b"new\n")))
    assert (await run("cat /tmp/in/a /tmp/in/other"))[0] == b"new\nstays\n"


async def test_what_is_not_there_cannot_be_got(root: JobRoot) -> None:
    with pytest.raises(GuestError, match="/tmp/missing"):
        async for _ in root.get("/tmp/missing"):
            pass


async def test_a_broken_archive_is_refused_and_the_root_lives(root: JobRoot, run: Run) -> None:
    with pytest.raises(GuestError):
        await root.put("/tmp/in", chunks(b"this is no archive" * 100))
    assert (await run("echo fine"))[0] == b"fine\n"


async def test_an_archive_whose_source_fails_leaves_the_root_usable(root: JobRoot, run: Run) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield archive(a=b"x")[:512]
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        await root.put("/tmp/in", failing())
    assert (await run("echo fine"))[0] == b"fine\n"


# hashFiles

FILES = {
    "/tmp/ws/a/package.lock": b"a\n",
    "/tmp/ws/b/package.lock": b"b\n",
    "/tmp/ws/b/.hidden/package.lock": b"h\n",
    "/tmp/ws/package.lock": b"top\n",
    "/tmp/ws/a.txt": b"text\n",
}


def digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["package.lock"], digest(b"top\n")),
        (["**/package.lock"], digest(b"a\n", b"h\n", b"b\n", b"top\n")),
        (["*/package.lock"], digest(b"a\n", b"b\n")),
        (["b/package.lock", "a/package.lock"], digest(b"b\n", b"a\n")),
        (["**/*.lock", "!b"], digest(b"a\n", b"top\n")),
        (["!b", "**/*.lock"], digest(b"a\n", b"h\n", b"b\n", b"top\n")),
        (["**/*.lock", "!b", "b/.hidden/*"], digest(b"a\n", b"h\n", b"top\n")),
        (["a"], digest(b"a\n")),
        (["./a/"], digest(b"a\n")),
        (["a.txt/"], ""),
        (["/tmp/ws/a.???"], digest(b"text\n")),
        (["[!b]/*"], digest(b"a\n")),
        (["# a comment\na.txt"], digest(b"text\n")),
        (["*.nothing"], ""),
        (["/etc/hostname"], ""),
    ],
)
async def test_hash_files(root: JobRoot, run: Run, patterns: list[str], expected: str) -> None:
    await run("true", files=FILES)
    assert await root.hash_files("/tmp/ws", patterns) == expected


async def test_hash_files_looks_through_links_to_files_only(root: JobRoot, run: Run) -> None:
    await run("ln -s a.txt /tmp/ws/link; ln -s a /tmp/ws/folder", files=FILES)
    assert await root.hash_files("/tmp/ws", ["link", "folder/**"]) == digest(b"text\n")


async def test_hash_files_of_a_folder_that_is_not_there(root: JobRoot) -> None:
    assert await root.hash_files("/no/such/folder", ["**"]) == ""


# Job roots


async def test_job_roots_do_not_share_files(vm: Vm, run: Run) -> None:
    await run("echo mine > /tmp/mark; mkdir -p /usr/local/bin; echo mine > /usr/local/bin/mark", user="root")
    async with await vm.guest.open_job(JobRootSpec("other")) as other:
        assert (await run("[ -e /tmp/mark ] || [ -e /usr/local/bin/mark ]", root=other))[1].code == 1


async def test_the_same_name_twice_is_two_roots(vm: Vm, run: Run) -> None:
    async with await vm.guest.open_job(JobRootSpec("test")) as other:
        await run("echo mine > /tmp/mark")
        assert (await run("[ -e /tmp/mark ]", root=other))[1].code == 1


@pytest.mark.real_only
async def test_job_roots_do_not_share_processes(vm: Vm, root: JobRoot, run: Run, script: Script) -> None:
    process = await root.exec(script("echo up; sleep 1000"))
    await first_line(process.output())
    async with await vm.guest.open_job(JobRootSpec("other")) as other:
        await run("kill -9 -1", root=other, user="root")
    await process.signal(0)
    _, status = await run("ps -e -o comm= | grep -c '^sleep$'")
    assert status.code == 0
    await process.signal(signal.SIGKILL)
    assert (await end(process)).signal == signal.SIGKILL


async def test_closing_a_root_ends_what_runs_in_it(vm: Vm, run: Run, script: Script) -> None:
    async with await vm.guest.open_job(JobRootSpec("short")) as short:
        process = await short.exec(script("trap '' TERM; echo up; sleep 1000"))
        await first_line(process.output())
        waiting = asyncio.create_task(process.wait())
    async with asyncio.timeout(DEADLINE):
        result = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert isinstance(result, GuestError) or (isinstance(result, ExitStatus) and result.code != 0)
    with pytest.raises(GuestError):
        await short.exec(script("true"))
    assert (await run("echo fine"))[0] == b"fine\n"


async def test_a_cancelled_wait_leaves_the_program_and_the_root_alone(
    root: JobRoot, script: Script, run: Run
) -> None:
    process = await root.exec(script("read line; echo got $line", stdin=True))
    waiting = asyncio.create_task(process.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await run("echo fine"))[0] == b"fine\n"
    await process.write(b"it\n")
    assert b"".join([chunk async for chunk in process.output()]) == b"got it\n"
    assert (await process.wait()).code == 0


async def test_a_cancelled_put_leaves_the_root_usable(root: JobRoot, run: Run) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield archive(a=b"x")[:512]
        started.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(root.put("/tmp/in", endless()))
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert (await run("echo fine"))[0] == b"fine\n"
