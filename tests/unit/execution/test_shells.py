"""How scripts are started.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.execution.shells import ShellError, shell_for, split_arguments


@pytest.mark.parametrize(
    ("option", "argv", "extension"),
    [
        ("bash", ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "/s"), ".sh"),
        ("sh", ("sh", "-e", "/s"), ".sh"),
        ("python", ("python", "/s"), ".py"),
        ("pwsh", ("pwsh", "-command", ". '/s'"), ".ps1"),
        ("bash -x {0}", ("bash", "-x", "/s"), ".sh"),
        ("perl {0}", ("perl", "/s"), ""),
        ("perl   -w  {0} --", ("perl", "-w", "/s", "--"), ""),
        ('env "A=b c" sh {0}', ("env", "A=b c", "sh", "/s"), ""),
        ("awk {{print}} {0}", ("awk", "{print}", "/s"), ""),
        ("node -r={0}", ("node", "-r=/s"), ""),
    ],
)
def test_command_lines(option: str, argv: tuple[str, ...], extension: str) -> None:
    shell = shell_for(option)

    assert shell.argv("/s") == argv
    assert shell.extension == extension
    assert shell.fallback is None


@pytest.mark.parametrize("option", [None, ""])
def test_unspecified_is_bash_and_sh_where_bash_is_missing(option: str | None) -> None:
    shell = shell_for(option)

    assert shell.argv("/s.sh") == ("bash", "-e", "/s.sh")
    assert shell.extension == ".sh"
    assert shell.fallback is not None
    assert shell.fallback.argv("/s.sh") == ("sh", "-e", "/s.sh")


@pytest.mark.parametrize("option", ["zsh", "perl -w", "bash -x", " "])
def test_a_shell_without_place_for_the_script_is_an_error(option: str) -> None:
    with pytest.raises(ShellError, match="must be a valid built-in"):
        shell_for(option)


def test_other_braces_are_an_error() -> None:
    with pytest.raises(ShellError, match="doubled"):
        shell_for("awk {print} {0}").argv("/s")


def test_scripts_are_written_as_they_are() -> None:
    assert shell_for("bash").script("echo 'é'\r\n") == "echo 'é'\r\n".encode()


def test_powershell_stops_on_errors_and_ends_with_the_last_exit_code() -> None:
    lines = shell_for("pwsh").script("Get-Date").decode().split("\n")

    assert lines[0] == "$ErrorActionPreference = 'stop'"
    assert lines[1] == "Get-Date"
    assert lines[2].endswith("{ exit $LASTEXITCODE }")


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("", []),
        (" \t ", []),
        ("a  b\tc", ["a", "b", "c"]),
        ('"a b" c', ["a b", "c"]),
        ('a" "b', ["a b"]),
        ('""', [""]),
        ('"a""b"', ['a"b']),
        ("'a b'", ["'a", "b'"]),
        ("a\\b", ["a\\b"]),
        ('a\\"b', ['a"b']),
        ('"a\\\\" b', ["a\\", "b"]),
        ('"open end', ["open end"]),
        ("a\nb", ["a\nb"]),
    ],
)
def test_arguments_are_split_as_dotnet_does(line: str, arguments: list[str]) -> None:
    assert split_arguments(line) == arguments


@given(st.lists(st.text('ab"\\ \t\n', max_size=8), max_size=5))
def test_quoted_arguments_come_back(arguments: list[str]) -> None:
    def quote(text: str) -> str:
        written = ""
        slashes = 0
        for character in text:
            written += "\\" * (slashes + 1) + '"' if character == '"' else character
            slashes = slashes + 1 if character == "\\" else 0
        return '"' + written + "\\" * slashes + '"'

    assert split_arguments(" ".join(map(quote, arguments))) == arguments
