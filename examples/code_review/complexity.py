"""How complex Python code is: McCabe's number, one and one more for each decision, for each function."""

import ast
import warnings
from dataclasses import dataclass
from typing import Final
from zlib import crc32

DECISIONS: Final = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Function:
    """One function or method; `line` is where it begins."""

    name: str
    line: int
    complexity: int
    fingerprint: int = 0
    """Of what it does: comments and layout make no difference. 0 when it was not asked for."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One source text."""

    lines: int
    total: int
    functions: tuple[Function, ...]


def measure(source: bytes, *, fingerprints: bool = False) -> Measure | None:
    """None for what is not Python of this interpreter's version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code under review: linting is another task
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found: list[Function] = []
    at_module_level = _count(tree, "", found, fingerprints)
    total = at_module_level + sum(function.complexity for function in found)
    return Measure(source.count(b"\n"), total, tuple(found))


def _count(scope: ast.AST, prefix: str, found: list[Function], fingerprints: bool) -> int:
    """Decisions in a scope; functions in it are counted on their own and put into `found`."""
    decisions = 0
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = _count(node, f"{prefix}{node.name}.", found, fingerprints)
            fingerprint = crc32(ast.dump(node).encode()) if fingerprints else 0
            found.append(Function(prefix + node.name, node.lineno, inside + 1, fingerprint))
        elif isinstance(node, ast.ClassDef):
            decisions += _count(node, f"{prefix}{node.name}.", found, fingerprints)
        else:
            decisions += _weight(node)
            waiting.extend(ast.iter_child_nodes(node))
    return decisions


def _weight(node: ast.AST) -> int:
    if isinstance(node, DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return 0
