"""Text to tokens."""

import math
import re
from enum import Enum, auto
from typing import Final, NamedTuple

from engine.expressions.errors import ExpressionSyntaxError
from engine.expressions.nodes import Scalar

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1
"""The engine's stores and encoders carry integers of 64 bits, with or without a sign."""

KEYWORDS: Final = frozenset({"true", "false", "null", "and", "or", "not", "in"})

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER: Final = re.compile(r"(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_OPERATOR: Final = re.compile(r"==|!=|<=|>=|=>|[-+*/%<>?:.,()\[\]{}]")
_HEXADECIMAL: Final = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", "/": "/", '"': '"', "'": "'"}
_OF_OTHER_LANGUAGES: Final = {"&": "and", "|": "or", "!": "not", "=": "=="}


class Kind(Enum):
    NAME = auto()
    KEYWORD = auto()
    LITERAL = auto()
    OPERATOR = auto()
    END = auto()


class Token(NamedTuple):
    kind: Kind
    at: int
    """From 1."""
    text: str
    value: Scalar = None
    symbol: str = ""
    """The text of an operator or a keyword; empty for all else."""


def tokenize(text: str) -> list[Token]:
    tokens: list[Token] = []
    index = _space_end(text, 0)
    while index < len(text):
        token, index = _token(text, index)
        tokens.append(token)
        index = _space_end(text, index)
    tokens.append(Token(Kind.END, len(text) + 1, ""))
    return tokens


def _space_end(text: str, index: int) -> int:
    space = _SPACE.match(text, index)
    return index if space is None else space.end()


def _token(text: str, index: int) -> tuple[Token, int]:
    character = text[index]
    if character in "\"'":
        value, end = _string(text, index)
        return Token(Kind.LITERAL, index + 1, text[index:end], value), end
    if name := _NAME.match(text, index):
        word = name[0]
        if word in KEYWORDS:
            return Token(Kind.KEYWORD, index + 1, word, symbol=word), name.end()
        return Token(Kind.NAME, index + 1, word), name.end()
    if number := _NUMBER.match(text, index):
        return _number(text, index, number), number.end()
    if operator := _OPERATOR.match(text, index):
        return Token(Kind.OPERATOR, index + 1, operator[0], symbol=operator[0]), operator.end()
    remedy = _OF_OTHER_LANGUAGES.get(character)
    hint = f"; write {remedy}" if remedy else ""
    raise ExpressionSyntaxError(index + 1, f"{character!a} has no meaning here{hint}")


def _number(text: str, index: int, number: re.Match[str]) -> Token:
    following = text[number.end() : number.end() + 1]
    if following.isascii() and (following.isalnum() or following == "_"):
        raise ExpressionSyntaxError(
            index + 1,
            "a number must end before a letter, a digit or _, and must not begin with 0; "
            'a field whose name begins with a digit is written ["1a"]',
        )
    value: int | float
    if number[1] is None and number[2] is None:
        value = int(number[0])
        if value > INTEGER_MAX:
            raise ExpressionSyntaxError(index + 1, "an integer must fit 64 bits; write it as 1e30 if about is enough")
    else:
        value = float(number[0])
        if not math.isfinite(value):
            raise ExpressionSyntaxError(index + 1, "the number is too large; 1.7e308 is about the largest")
    return Token(Kind.LITERAL, index + 1, number[0], value)


def _string(text: str, start: int) -> tuple[str, int]:
    quote, index, parts = text[start], start + 1, list[str]()
    while index < len(text):
        character = text[index]
        if character == quote:
            return _encodable("".join(parts), start), index + 1
        if character < " ":
            raise ExpressionSyntaxError(
                index + 1, "a string must not contain control characters; write \\n, \\t, \\u0001"
            )
        if character != "\\":
            parts.append(character)
            index += 1
        elif text[index + 1 : index + 2] == "u":
            digits = _HEXADECIMAL.match(text, index + 2)
            if digits is None:
                raise ExpressionSyntaxError(index + 1, "\\u needs four hexadecimal digits, as in \\u00e9")
            parts.append(chr(int(digits[0], 16)))
            index += 6
        else:
            escaped = _ESCAPES.get(text[index + 1 : index + 2])
            if escaped is None:
                raise ExpressionSyntaxError(index + 1, "\\ must be followed by one of n t r b f u / \\ and quotes")
            parts.append(escaped)
            index += 2
    raise ExpressionSyntaxError(start + 1, f"the string has no end; close it with {quote}")


def _encodable(value: str, start: int) -> str:
    """The characters, with the halves of surrogate pairs joined as in JSON; no encoder takes a lone half."""
    if value.isascii() and "\x00" not in value:
        return value
    try:
        joined = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise ExpressionSyntaxError(start + 1, "the string contains half of a surrogate pair") from error
    if "\x00" in joined:
        raise ExpressionSyntaxError(start + 1, "the string contains the NUL character")
    return joined
