"""Tokens to a tree, by operator precedence and without recursion: nesting costs memory, never the stack.

Which token may follow which, and the words for what may not, are those of actions/runner.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum, auto
from typing import TYPE_CHECKING

from cloche.expressions.errors import ParsingError, Source, utf16_length
from cloche.expressions.lexer import Kind, Token, tokens
from cloche.expressions.syntax import (
    Call,
    Comparison,
    Context,
    Index,
    Literal,
    Logical,
    Node,
    Not,
    Wildcard,
    is_deeper_than,
)
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.expressions.names import Names

MAX_DEPTH = 50
"""Levels of the tree; GitHub's limit."""
MAX_LENGTH = 21_000
"""UTF-16 units of one expression; GitHub's limit."""

_PRECEDENCE = {"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 4, "<=": 4, ">": 4, ">=": 4, "!": 5}


class _State(Enum):
    """What has just been read, which decides what may come."""

    START = auto()  # nothing, an operator, "(" or ",": an operand must follow
    INDEX = auto()  # "[": an operand or "*" must follow
    DOT = auto()  # ".": a name or "*" must follow
    FUNCTION = auto()  # a function's name: "(" follows
    ARGUMENTS = auto()  # "(" of a call: an operand or ")" must follow
    VALUE = auto()  # what can be indexed
    LITERAL = auto()  # what cannot


_OPERAND = {_State.START, _State.INDEX, _State.ARGUMENTS}
_ENDED = {_State.VALUE, _State.LITERAL}
_LEGAL = {
    Kind.LITERAL: _OPERAND,
    Kind.NAME: _OPERAND,
    Kind.FUNCTION: _OPERAND,
    Kind.NOT: _OPERAND,
    Kind.OPEN: _OPERAND | {_State.FUNCTION},
    Kind.WILDCARD: {_State.INDEX, _State.DOT},
    Kind.PROPERTY: {_State.DOT},
    Kind.DOT: {_State.VALUE},
    Kind.OPEN_INDEX: {_State.VALUE},
    Kind.OPERATOR: _ENDED,
    Kind.SEPARATOR: _ENDED,
    Kind.CLOSE_INDEX: _ENDED,
    Kind.CLOSE: _ENDED | {_State.ARGUMENTS},
}


@record(frozen=False)
class _Frame:
    """What is between one bracket and its partner (or the whole text): operands and waiting operators."""

    opening: Token | None = None
    function: Token | None = None
    operands: list[Node] = field(default_factory=list)
    operators: list[Token] = field(default_factory=list)
    arguments: list[Node] = field(default_factory=list)

    def push(self, operator: Token) -> None:
        """Take a binary operator; what binds at least as tightly before it is complete now."""
        self.reduce(_PRECEDENCE[operator.text])
        self.operators.append(operator)

    def reduce(self, precedence: int) -> None:
        while self.operators and _PRECEDENCE[self.operators[-1].text] >= precedence:
            self._apply(self.operators.pop())

    def _apply(self, operator: Token) -> None:
        right = self.operands.pop()
        if operator.kind is Kind.NOT:
            self.operands.append(Not(operator.offset, right))
            return
        left = self.operands.pop()
        self.operands.append(_binary(operator, left, right))

    def finish(self) -> Node:
        self.reduce(0)
        return self.operands.pop()

    def index(self, offset: int, key: Node) -> None:
        self.operands.append(Index(offset, self.operands.pop(), key))


def _binary(operator: Token, left: Node, right: Node) -> Node:
    if operator.text not in {"&&", "||"}:
        return Comparison(operator.offset, operator.text, left, right)
    return Logical(operator.offset, operator.text, _links(left, operator.text) + _links(right, operator.text))


def _links(node: Node, operator: str) -> tuple[Node, ...]:
    """Return the operands of a chain of the same operator, else the node alone: chains are flat."""
    return node.operands if isinstance(node, Logical) and node.operator == operator else (node,)


class _Parser:
    def __init__(self, source: Source, names: Names) -> None:
        self._source = source
        self._names = names
        self._state = _State.START
        self._frames = [_Frame()]
        self._handlers: dict[Kind, Callable[[Token], _State]] = {
            Kind.LITERAL: self._literal,
            Kind.NAME: self._context,
            Kind.FUNCTION: self._function,
            Kind.PROPERTY: self._property,
            Kind.WILDCARD: self._wildcard,
            Kind.NOT: self._not,
            Kind.OPERATOR: self._operator,
            Kind.DOT: lambda _: _State.DOT,
            Kind.OPEN: self._open,
            Kind.OPEN_INDEX: self._open_index,
            Kind.SEPARATOR: self._separator,
            Kind.CLOSE: self._close,
            Kind.CLOSE_INDEX: self._close_index,
        }

    def parse(self) -> Node | None:
        last: Token | None = None
        for token in list(
            tokens(self._source)
        ):  # all first: what is no token goes before what makes no sense
            if self._state not in _LEGAL[token.kind]:
                raise self._error("Unexpected symbol", token)
            self._state = self._handlers[token.kind](token)
            last = token
        if last is None:
            return None
        if self._state not in _ENDED or len(self._frames) > 1:
            raise self._error("Unexpected end of expression", last)
        return self._frames[-1].finish()

    @property
    def _frame(self) -> _Frame:
        return self._frames[-1]

    def _error(self, description: str, token: Token, hint: str | None = None) -> ParsingError:
        return self._source.error(ParsingError, description, token.text, token.offset, hint)

    def _literal(self, token: Token) -> _State:
        self._frame.operands.append(Literal(token.offset, token.value))
        return _State.LITERAL

    def _context(self, token: Token) -> _State:
        if not self._names.has_context(token.text):
            raise self._error("Unrecognized named-value", token, self._names.context_hint())
        self._frame.operands.append(Context(token.offset, token.text))
        return _State.VALUE

    def _function(self, token: Token) -> _State:
        if self._names.arity(token.text) is None:
            raise self._error("Unrecognized function", token, self._names.function_hint())
        self._frames.append(_Frame(function=token))
        return _State.FUNCTION

    def _property(self, token: Token) -> _State:
        self._frame.index(token.offset, Literal(token.offset, token.text))
        return _State.VALUE

    def _wildcard(self, token: Token) -> _State:
        star = Wildcard(token.offset)
        if self._state is _State.DOT:
            self._frame.index(token.offset, star)
        else:
            self._frame.operands.append(star)
        return _State.VALUE

    def _not(self, token: Token) -> _State:
        self._frame.operators.append(token)
        return _State.START

    def _operator(self, token: Token) -> _State:
        self._frame.push(token)
        return _State.START

    def _open(self, token: Token) -> _State:
        if self._state is _State.FUNCTION:
            self._frame.opening = token
            return _State.ARGUMENTS
        self._frames.append(_Frame(token))
        return _State.START

    def _open_index(self, token: Token) -> _State:
        self._frames.append(_Frame(token))
        return _State.INDEX

    def _separator(self, token: Token) -> _State:
        if self._frame.function is None:
            raise self._error("Unexpected symbol", token)
        self._frame.arguments.append(self._frame.finish())
        return _State.START

    def _close(self, token: Token) -> _State:
        frame = self._frame
        if frame.opening is None or frame.opening.kind is not Kind.OPEN:
            raise self._error("Unexpected symbol", token)
        if frame.function is None:
            # "()" is refused here: only a call has brackets that may be empty, and START needs an operand.
            return self._leave(frame.finish())
        if self._state is not _State.ARGUMENTS:
            frame.arguments.append(frame.finish())
        self._check_arity(frame.function, len(frame.arguments))
        call = Call(frame.function.offset, frame.function.text, tuple(frame.arguments))
        return self._leave(call)

    def _close_index(self, token: Token) -> _State:
        frame = self._frame
        if frame.opening is None or frame.opening.kind is not Kind.OPEN_INDEX:
            raise self._error("Unexpected symbol", token)
        key = frame.finish()
        self._frames.pop()
        self._frame.index(frame.opening.offset, key)
        return _State.VALUE

    def _leave(self, node: Node) -> _State:
        self._frames.pop()
        self._frame.operands.append(node)
        return _State.VALUE

    def _check_arity(self, function: Token, count: int) -> None:
        arity = self._names.arity(function.text)
        problem = arity.problem(count) if arity else None
        if problem:
            raise self._error(problem, function, f"{function.text}() takes {arity}, not {count}")


def parse_tree(source: Source, names: Names) -> Node | None:
    """Return the tree of ``source``, ``None`` for an empty text.

    Raises LexingError at the first thing that is no token, else ParsingError at the first thing wrong.
    """
    check_length(source)
    root = _Parser(source, names).parse()
    if root is not None:
        check_depth(source, root)
    return root


def check_length(source: Source) -> None:
    """Raise ParsingError if the text is longer than GitHub allows one expression to be."""
    if source.end - source.start > MAX_LENGTH or utf16_length(source.text) > MAX_LENGTH:
        hint = "split it; a string that holds ${{ }} counts as one expression, text around it included"
        message = f"Exceeded max expression length {MAX_LENGTH}"
        raise ParsingError(message, offset=source.start, hint=hint)


def check_depth(source: Source, root: Node) -> None:
    """Raise ParsingError if the tree has more levels than GitHub allows."""
    if is_deeper_than(MAX_DEPTH, root):
        raise ParsingError(f"Exceeded max expression depth {MAX_DEPTH}", offset=source.start)
