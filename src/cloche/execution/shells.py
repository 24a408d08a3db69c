"""How a ``run`` step's script is started.

Rules: "steps[*].shell" in https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax,
and actions/runner, which formats and splits the command line as .NET does.
"""

from __future__ import annotations

import re

from cloche.records import record

_ARGUMENTS = {
    "bash": "--noprofile --norc -e -o pipefail {0}",
    "cmd": '/D /E:ON /V:OFF /S /C "CALL "{0}""',
    "powershell": "-command \". '{0}'\"",
    "pwsh": "-command \". '{0}'\"",
    "python": "{0}",
    "sh": "-e {0}",
}
_EXTENSIONS = {
    "bash": ".sh",
    "cmd": ".cmd",
    "powershell": ".ps1",
    "pwsh": ".ps1",
    "python": ".py",
    "sh": ".sh",
}
_POWERSHELLS = ("powershell", "pwsh")
_INVALID = (
    "Invalid shell option. Shell must be a valid built-in (bash, sh, cmd, powershell, pwsh) or a format "
    "string containing '{0}'"
)


class ShellError(ValueError):
    """Raised for a ``shell`` that names no built-in and has no place for the script."""


@record
class Shell:
    """A program and the format of its arguments. ``fallback`` is tried when the program is missing."""

    program: str
    arguments: str
    extension: str
    fallback: Shell | None = None

    def argv(self, script: str) -> tuple[str, ...]:
        """Return the command line that runs the file ``script``; ShellError for a format no one can fill."""
        line = _format(self.arguments, script.replace('"', '\\"'))
        return (self.program, *split_arguments(line))

    def script(self, text: str) -> bytes:
        """Return what to write to the script file for the step's ``run``."""
        if self.program in _POWERSHELLS:
            text = (
                "$ErrorActionPreference = 'stop'\n"
                f"{text}\n"
                "if ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) { exit $LASTEXITCODE }"
            )
        return text.encode("utf-8", "replace")


def shell_for(option: str | None) -> Shell:
    """Return the shell that ``option`` means: a built-in's name or a command with ``{0}``.

    Without one it is bash, or sh where bash is missing, both with ``-e`` only. Raises ShellError.
    """
    if not option:
        plain = Shell("sh", _ARGUMENTS["sh"], _EXTENSIONS["sh"])
        return Shell("bash", plain.arguments, plain.extension, fallback=plain)
    program, _, arguments = option.partition(" ")
    arguments = arguments.lstrip() or _ARGUMENTS.get(program.lower(), "")
    if "{0}" not in arguments:
        raise ShellError(_INVALID)
    return Shell(program, arguments, _EXTENSIONS.get(program.lower(), ""))


def _format(template: str, script: str) -> str:
    """.NET's ``string.Format`` with one argument: ``{0}`` is the script, ``{{`` and ``}}`` are braces."""

    def fill(match: re.Match[str]) -> str:
        match match.group():
            case "{0}":
                return script
            case "{{" | "}}" as braces:
                return braces[0]
            case _:
                raise ShellError("Invalid shell option. Braces other than {0} must be doubled")

    return re.sub(r"\{0\}|\{\{|\}\}|[{}]", fill, template)


def split_arguments(line: str) -> list[str]:
    """Split as .NET does: blanks and tabs part, double quotes join, single quotes are ordinary characters.

    A backslash is ordinary too, except before a double quote, which it makes ordinary; two double quotes
    within quotes are one of them.
    """
    arguments: list[str] = []
    position = 0
    while (position := _skip_blanks(line, position)) < len(line):
        argument, position = _argument(line, position)
        arguments.append(argument)
    return arguments


def _skip_blanks(line: str, position: int) -> int:
    while position < len(line) and line[position] in " \t":
        position += 1
    return position


_ARGUMENT_PARTS = re.compile(r'(?P<slashes>\\+)(?P<escaped>"?)|(?P<quotes>""?)|(?P<text>[^\\"])')


def _argument(line: str, position: int) -> tuple[str, int]:
    """Return the argument that begins at ``position`` and the place of the blank behind it."""
    parts: list[str] = []
    quoted = False
    while match := _ARGUMENT_PARTS.match(line, position):
        position = match.end()
        if slashes := match["slashes"]:
            if not match["escaped"]:
                parts.append(slashes)
            else:
                parts.append("\\" * (len(slashes) // 2))
                if len(slashes) % 2:
                    parts.append('"')
                else:
                    position -= 1  # the quote is one: read it again
        elif quotes := match["quotes"]:
            if quoted and len(quotes) == 2:  # noqa: PLR2004 - a pair
                parts.append('"')
            else:
                quoted = not quoted
                position = match.start() + 1
        elif match["text"] in " \t" and not quoted:
            return "".join(parts), match.start()
        else:
            parts.append(match["text"])
    return "".join(parts), position
