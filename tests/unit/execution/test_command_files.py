"""The files of one step."""

from __future__ import annotations

from cloche.execution.command_files import CommandFiles, Summary
from cloche.execution.line_commands import Assign, Issue
from cloche.vm.guest import CollectedFile


def collected(files: CommandFiles, **contents: bytes) -> dict[str, CollectedFile]:
    return {files.paths[kind]: CollectedFile(content) for kind, content in contents.items()}


def test_paths_are_fresh_and_named_as_githubs() -> None:
    one, other = CommandFiles(), CommandFiles()

    assert not set(one.paths.values()) & set(other.paths.values())
    folder = "/home/runner/work/_temp/_runner_file_commands"
    prefixes = {path.rpartition("_")[0] for path in one.paths.values()}
    assert prefixes == {
        f"{folder}/{name}" for name in ("add_path", "set_env", "step_summary", "save_state", "set_output")
    }
    assert one.context()["output"] == one.paths["output"]
    assert set(one.empty()) == set(one.paths.values())


def test_what_they_say_in_the_runners_order() -> None:
    files = CommandFiles()

    said = list(
        files.read(
            collected(
                files, output=b"o=1\n", state=b"s=2\n", step_summary=b"# S\n", env=b"E=3\n", path=b"/p\n"
            )
        )
    )

    assert said == [
        Assign("path", "", "/p"),
        Assign("env", "E", "3"),
        Summary("# S\n"),
        Assign("state", "s", "2"),
        Assign("output", "o", "1"),
    ]


def test_files_that_are_gone_say_nothing() -> None:
    assert list(CommandFiles().read({})) == []


def test_a_mistake_in_one_leaves_the_others() -> None:
    files = CommandFiles()

    said = list(files.read(collected(files, env=b"A=1\nbroken\n", output=b"o=1")))

    assert said[0] == Assign("env", "A", "1")
    assert [issue.failed for issue in said if isinstance(issue, Issue)] == [True, True]
    assert said[-1] == Assign("output", "o", "1")


def test_a_file_that_was_cut_is_not_read() -> None:
    files = CommandFiles()

    said = list(files.read({files.paths["env"]: CollectedFile(b"A=1\n", truncated=True)}))

    assert [type(item) for item in said] == [Issue, Issue]
