"""What a shell script is made of, once read."""

from __future__ import annotations

from cloche.records import record


@record
class Text:
    """Characters as they stand; ``quoted`` ones are never split or matched against file names."""

    text: str
    quoted: bool


@record
class Variable:
    """``$name`` or ``${name<operator>word}``."""

    name: str
    quoted: bool
    operator: str = ""
    word: Word = ()


@record
class Substitution:
    """``$(script)``."""

    script: Script
    quoted: bool


Word = tuple[Text | Variable | Substitution, ...]


@record
class Redirect:
    """``2>file`` and its kin; a here-document's target is its text."""

    descriptor: int
    operator: str
    target: Word


@record
class Simple:
    """``NAME=value … program argument …``."""

    line: int
    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]


@record
class Group:
    """``{ … }``, or ``( … )`` with changes that stay inside."""

    script: Script
    subshell: bool
    redirects: tuple[Redirect, ...]


@record
class If:
    """``if … elif … else … fi``: condition and body by turns; an ``else`` has no condition."""

    branches: tuple[tuple[Script | None, Script], ...]
    redirects: tuple[Redirect, ...]


@record
class For:
    """``for name in words``; ``words`` is ``None`` for the positional parameters."""

    name: str
    words: tuple[Word, ...] | None
    body: Script
    redirects: tuple[Redirect, ...]


@record
class While:
    """``while`` or, ``negated``, ``until``."""

    condition: Script
    body: Script
    negated: bool
    redirects: tuple[Redirect, ...]


Command = Simple | Group | If | For | While


@record
class Pipeline:
    """``! a | b``."""

    commands: tuple[Command, ...]
    negated: bool


@record
class AndOr:
    """Pipelines joined by ``&&`` and ``||``; the first one's operator is empty."""

    parts: tuple[tuple[str, Pipeline], ...]
    background: bool


Script = tuple[AndOr, ...]
