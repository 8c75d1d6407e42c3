"""The syntax tree. Chains of one precedence are one node, so that long expressions are not deep ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """`at` is where it stands, counted from 1, for messages."""

    at: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    value: Scalar


@dataclass(frozen=True, slots=True)
class Name(Node):
    name: str


@dataclass(frozen=True, slots=True)
class ListLiteral(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ObjectLiteral(Node):
    entries: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Path(Node):
    """`base.field["field"][index]`; a field is a Literal here."""

    base: Node
    steps: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    operand: Node


@dataclass(frozen=True, slots=True)
class Negative(Node):
    operand: Node


@dataclass(frozen=True, slots=True)
class Conjunction(Node):
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Disjunction(Node):
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """`first op a op b ...`, from left to right; each operator with its own place."""

    first: Node
    rest: tuple[tuple[str, int, Node], ...]


@dataclass(frozen=True, slots=True)
class Choice(Node):
    """`c1 ? v1 : c2 ? v2 : otherwise`."""

    cases: tuple[tuple[Node, Node], ...]
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Lambda(Node):
    parameter: str
    body: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. Two are equal when their texts are."""

    text: str
    root: Node = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.text


def children(node: Node) -> Iterator[Node]:
    match node:
        case ListLiteral(items=nodes) | Conjunction(operands=nodes) | Disjunction(operands=nodes):
            yield from nodes
        case Call(arguments=nodes):
            yield from nodes
        case ObjectLiteral(entries=entries):
            yield from (value for _, value in entries)
        case Path(base=base, steps=steps):
            yield base
            yield from steps
        case Not(operand=operand) | Negative(operand=operand):
            yield operand
        case Comparison(left=left, right=right):
            yield left
            yield right
        case Arithmetic(first=first, rest=rest):
            yield first
            yield from (operand for _, _, operand in rest)
        case Choice(cases=cases, otherwise=otherwise):
            for condition, value in cases:
                yield condition
                yield value
            yield otherwise
        case Lambda(body=body):
            yield body
