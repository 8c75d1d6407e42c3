"""Repairs small mistakes: tries one small change after the other until the tests pass.

The changes are those that people get wrong: a comparison that takes the limit in or leaves it out, plus for minus, a
number that is off by one.
"""

import ast
from collections.abc import Callable, Iterator
from typing import Final

TRIES_MAX: Final = 60

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq
}  # fmt: skip
_OPERATIONS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult
}  # fmt: skip


def mend(source: str, passes: Callable[[str], bool]) -> tuple[str | None, int]:
    """The source with the first change that makes the tests pass, or None; and how many were tried."""
    tried = 0
    for candidate in _changed(source):
        if tried >= TRIES_MAX:
            break
        tried += 1
        if passes(candidate):
            return candidate, tried
    return None, tried


def _changed(source: str) -> Iterator[str]:
    """Each with one change, and otherwise as it was written."""
    for node in ast.walk(ast.parse(source)):
        for changed in _changes(node):
            if isinstance(node, ast.expr) and node.lineno == node.end_lineno:
                yield _put(source, node, ast.unparse(changed))


def _put(source: str, node: ast.expr, text: str) -> str:
    lines = source.splitlines(keepends=True)
    line = lines[node.lineno - 1].encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + text.encode() + line[node.end_col_offset :]).decode()
    return "".join(lines)


def _changes(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        yield ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        yield ast.BinOp(node.left, _OPERATIONS[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
