"""The fake's shell language: text in, tree out.

A documented part of POSIX sh, enough for workflows of examples: simple commands with assignments and
redirects, pipelines, ``&&``, ``||``, ``;``, ``&``, ``!``, ``( )``, ``{ }``, ``if``, ``for``, ``while``,
``until``, quotes, here-documents, ``$NAME``, ``${NAME}`` with the ``:-`` family, ``$(…)``. What it does not
know it refuses by name and line: nothing is silently read as something else.
"""

from __future__ import annotations

import re

from cloche.records import record
from cloche.vm.fake.tree import (
    AndOr,
    Command,
    For,
    Group,
    If,
    Pipeline,
    Redirect,
    Script,
    Simple,
    Substitution,
    Text,
    Variable,
    While,
    Word,
)

_OPERATOR = re.compile(r"<<<|[<>]\(|&>>?|\d*(?:<<-|<<|>>|>&|<&|>\||<|>)|&&|\|\||;;|[;&|()]")
_REDIRECT = re.compile(r"(\d*)(<<-|<<|>>|>&|>|<)|(&>>?)")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=", re.ASCII)
_SPECIAL = "?$!#@*0123456789-"
_BRACED = re.compile(rf"([A-Za-z_]\w*|[{_SPECIAL}])(:?[-+?=])?", re.ASCII)
_CLOSERS = {"then", "elif", "else", "fi", "do", "done", "}", ")"}
_REFUSED = {"case", "function", "select", "[[", "((", "time", "coproc"}
_REFUSED_OPERATORS = {"<<<": "<<<", "<(": "<(…)", ">(": ">(…)"}
_MAX_SHOWN = 40
_END_OF_WORD = " \t\n;&|()<>"


class ShellSyntaxError(Exception):
    """A script that is wrong, or asks for more than this shell does; ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@record(frozen=False)
class _Token:
    kind: str  # "word", "operator", "newline" or "end"
    text: str
    word: Word = ()


@record(frozen=False)
class _Parser:
    text: str
    at: int = 0
    nested: str = ""  # what ends a nested script: ")" inside $( )
    _peeked: _Token | None = None
    _cut: int = 0  # lines of here-documents taken out of the text

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1 + self._cut

    def fail(self, message: str) -> ShellSyntaxError:
        return ShellSyntaxError(message, self.line)

    # Tokens

    def peek(self) -> _Token:
        if self._peeked is None:
            self._peeked = self._scan()
        return self._peeked

    def next(self) -> _Token:
        token = self.peek()
        self._peeked = None
        return token

    def _scan(self) -> _Token:
        self._skip_blanks()
        if self.at >= len(self.text):
            return _Token("end", "end of file")
        if self.text[self.at] == "\n":
            self.at += 1
            return _Token("newline", "newline")
        found = _OPERATOR.match(self.text, self.at)
        if found and found[0] in _REFUSED_OPERATORS:
            raise self.fail(f"{_REFUSED_OPERATORS[found[0]]} is not part of the fake shell")
        if found:
            self.at = found.end()
            return _Token("operator", found[0])
        start = self.at
        word = self._word(_END_OF_WORD)
        return _Token("word", self.text[start : self.at], word)

    def _skip_blanks(self) -> None:
        while self.at < len(self.text):
            if self.text.startswith("\\\n", self.at):
                self.at += 2
            elif self.text[self.at] in " \t\r":
                self.at += 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    # Words

    def _word(self, stop: str) -> Word:
        parts: list[Text | Variable | Substitution] = []
        while self.at < len(self.text) and self.text[self.at] not in stop:
            parts += self._part()
        return tuple(parts)

    def _part(self) -> Word:
        match sign := self.text[self.at]:
            case "'":
                end = self.text.find("'", self.at + 1)
                if end < 0:
                    raise self.fail("unexpected end of file while looking for the closing '")
                inner = self.text[self.at + 1 : end]
                self.at = end + 1
                return (Text(inner, quoted=True),)
            case '"':
                self.at += 1
                return self._double_quoted()
            case "\\":
                self.at += 2
                escaped = self.text[self.at - 1 : self.at]
                return () if escaped == "\n" else (Text(escaped, quoted=True),)
            case "$":
                return (self._dollar(quoted=False),)
            case "`":
                raise self.fail("`…` is not part of the fake shell; use $(…)")
        self.at += 1
        return (Text(sign, quoted=False),)

    def _double_quoted(self) -> Word:
        parts: list[Text | Variable | Substitution] = [Text("", quoted=True)]
        while True:
            if self.at >= len(self.text):
                raise self.fail('unexpected end of file while looking for the closing "')
            if self.text[self.at] == '"':
                self.at += 1
                return tuple(parts)
            parts += self._inside_quotes('$`"\\\n')

    def _inside_quotes(self, escapable: str) -> Word:
        sign = self.text[self.at]
        if (
            sign == "\\"
            and self.text[self.at + 1 : self.at + 2] in escapable
            and self.at + 1 < len(self.text)
        ):
            self.at += 2
            return () if self.text[self.at - 1] == "\n" else (Text(self.text[self.at - 1], quoted=True),)
        if sign == "$":
            return (self._dollar(quoted=True),)
        if sign == "`":
            raise self.fail("`…` is not part of the fake shell; use $(…)")
        self.at += 1
        return (Text(sign, quoted=True),)

    def _dollar(self, *, quoted: bool) -> Text | Variable | Substitution:
        self.at += 1
        if self.text.startswith("((", self.at):
            raise self.fail("$((…)) is not part of the fake shell")
        if self.text.startswith("(", self.at):
            inner = _Parser(self.text, self.at + 1, nested=")")
            script = inner.script()
            self.text, self.at, self._cut = inner.text, inner.at, self._cut + inner._cut
            return Substitution(script, quoted)
        if not quoted and self.text[self.at : self.at + 1] in {"'", '"'}:
            sign = self.text[self.at]
            raise self.fail(f"${sign}…{sign} is not part of the fake shell")
        if self.text.startswith("{", self.at):
            return self._braced(quoted=quoted)
        found = _NAME.match(self.text, self.at)
        name = found[0] if found else self.text[self.at : self.at + 1]
        if not found and (not name or name not in _SPECIAL):
            return Text("$", quoted)
        self.at += len(name)
        return Variable(name, quoted)

    def _braced(self, *, quoted: bool) -> Variable:
        start = self.at
        found = _BRACED.match(self.text, self.at + 1)
        if found:
            self.at = found.end()
            word = self._word("}") if found[2] else ()
            if self.text[self.at : self.at + 1] == "}":
                self.at += 1
                return Variable(found[1], quoted, found[2] or "", word)
        shown = self.text[start : start + _MAX_SHOWN].partition("}")
        raise self.fail(f"${shown[0]}{shown[1]} is not part of the fake shell")

    # Here-documents

    def _document(self, descriptor: int, operator: str, delimiter: Word) -> Redirect:
        """Take the document's lines, which begin after this line, out of the text."""
        end = "".join(part.text for part in delimiter if isinstance(part, Text))
        start = self.text.find("\n", self.at) + 1 or len(self.text)
        lines = []
        at = start
        while at < len(self.text):
            line, newline, _ = self.text[at:].partition("\n")
            at += len(line) + len(newline)
            line = line.lstrip("\t") if operator == "<<-" else line
            if line == end:
                break
            lines.append(line + "\n")
        else:
            raise self.fail(f"here-document without its end `{end}'")
        self._cut += self.text.count("\n", start, at)
        self.text = self.text[:start] + self.text[at:]
        raw = any(isinstance(part, Text) and part.quoted for part in delimiter)
        return Redirect(descriptor, "<<", self._document_body("".join(lines), raw=raw))

    @staticmethod
    def _document_body(text: str, *, raw: bool) -> Word:
        if raw:
            return (Text(text, quoted=True),)
        inner = _Parser(text)
        parts: list[Text | Variable | Substitution] = []
        while inner.at < len(inner.text):
            parts += inner._inside_quotes("$`\\\n")
        return tuple(parts)

    # Grammar

    def script(self, *closers: str) -> Script:
        """Commands up to one of ``closers``, which is consumed, or to the end."""
        parts: list[AndOr] = []
        while True:
            while self.peek().kind == "newline":
                self.next()
            token = self.peek()
            if token.kind == "end" and not closers and not self.nested:
                return tuple(parts)
            if token.text == (self.nested or None) and not closers:
                self.next()
                return tuple(parts)
            if token.text in closers and parts:
                return tuple(parts)
            parts.append(self._and_or())

    @staticmethod
    def _is_stray(token: _Token) -> bool:
        return token.kind == "operator" and token.text != "(" and not _REDIRECT.fullmatch(token.text)

    def _and_or(self) -> AndOr:
        parts = [("", self._pipeline())]
        while self.peek().text in {"&&", "||"} and self.peek().kind == "operator":
            operator = self.next().text
            self._skip_newlines()
            parts.append((operator, self._pipeline()))
        token = self.peek()
        background = token.kind == "operator" and token.text == "&"
        if background or (token.kind == "operator" and token.text == ";") or token.kind == "newline":
            self.next()
        elif token.kind != "end" and token.text != ")":
            raise self.fail(f"syntax error near unexpected token `{token.text}'")
        return AndOr(tuple(parts), background)

    def _skip_newlines(self) -> None:
        while self.peek().kind == "newline":
            self.next()

    def _pipeline(self) -> Pipeline:
        negated = self._take("!")
        commands = [self._command()]
        while self.peek().kind == "operator" and self.peek().text == "|":
            self.next()
            self._skip_newlines()
            commands.append(self._command())
        return Pipeline(tuple(commands), negated)

    def _take(self, text: str) -> bool:
        if self.peek().text == text and self.peek().kind != "end":
            self.next()
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self.fail(f"syntax error near unexpected token `{self.peek().text}', expected `{text}'")

    def _command(self) -> Command:
        token = self.peek()
        if token.kind in {"end", "newline"} or token.text in {*_CLOSERS, "!"} or self._is_stray(token):
            raise self.fail(f"syntax error near unexpected token `{token.text}'")
        if token.text in _REFUSED:
            raise self.fail(f"`{token.text}' is not part of the fake shell")
        match token.text:
            case "(":
                return self._group(")", subshell=True)
            case "{":
                return self._group("}", subshell=False)
            case "if":
                return self._if()
            case "for":
                return self._for()
            case "while" | "until":
                return self._while()
        return self._simple()

    def _group(self, closer: str, *, subshell: bool) -> Group:
        self.next()
        if subshell and self.text.startswith("(", self.at):
            raise self.fail("`((' is not part of the fake shell")
        script = self.script(closer)
        self._expect(closer)
        return Group(script, subshell, self._redirects())

    def _if(self) -> If:
        branches: list[tuple[Script | None, Script]] = []
        self.next()
        while True:
            condition = self.script("then")
            self._expect("then")
            branches.append((condition, self.script("elif", "else", "fi")))
            if not self._take("elif"):
                break
        if self._take("else"):
            branches.append((None, self.script("fi")))
        self._expect("fi")
        return If(tuple(branches), self._redirects())

    def _for(self) -> For:
        self.next()
        name = self.next().text
        if not _NAME.fullmatch(name):
            raise self.fail(f"`{name}': not a valid identifier")
        words: list[Word] | None = None
        self._skip_newlines()
        if self._take("in"):
            words = []
            while self.peek().kind == "word":
                words.append(self.next().word)
        self._take(";")
        self._skip_newlines()
        body = self._loop_body()
        return For(name, None if words is None else tuple(words), body, self._redirects())

    def _while(self) -> While:
        negated = self.next().text == "until"
        condition = self.script("do")
        return While(condition, self._loop_body(), negated, self._redirects())

    def _loop_body(self) -> Script:
        self._expect("do")
        body = self.script("done")
        self._expect("done")
        return body

    def _simple(self) -> Simple:
        line = self.line
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            token = self.peek()
            found = _ASSIGNMENT.match(token.text)
            if token.kind == "operator" and _REDIRECT.fullmatch(token.text):
                redirects += self._redirect()
            elif token.kind == "operator" and token.text == "(" and words:
                raise self.fail("functions are not part of the fake shell")
            elif token.kind != "word":
                return Simple(line, tuple(assignments), tuple(words), tuple(redirects))
            elif found and not words:
                assignments.append((found[1], _without(self.next().word, len(found[0]))))
            else:
                words.append(self.next().word)

    def _redirects(self) -> tuple[Redirect, ...]:
        redirects: list[Redirect] = []
        while self.peek().kind == "operator" and _REDIRECT.fullmatch(self.peek().text):
            redirects += self._redirect()
        return tuple(redirects)

    def _redirect(self) -> tuple[Redirect, ...]:
        text = self.next().text
        found = _REDIRECT.fullmatch(text)
        target = self.next()
        if found is None or target.kind != "word":
            raise self.fail(f"syntax error near unexpected token `{target.text}'")
        if found[3]:
            both = Redirect(1, found[3][1:], target.word)
            return (both, Redirect(2, ">&", (Text("1", quoted=True),)))
        operator = found[2]
        descriptor = int(found[1]) if found[1] else int(operator[0] == ">")
        if operator.startswith("<<"):
            return (self._document(descriptor, operator, target.word),)
        return (Redirect(descriptor, operator, target.word),)


def _without(word: Word, count: int) -> Word:
    """Cut the first ``count`` characters off, which are all unquoted text of one character each."""
    return word[count:]


def parse(text: str) -> Script:
    """Read a script as a tree; ShellSyntaxError says what is wrong and where."""
    return _Parser(text).script()
