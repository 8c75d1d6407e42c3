"""The language of conditions: expressions over JSON, evaluated in a bounded number of steps (docs/expressions.md).

Pure, and the engine's own: an expression must give the same on every replay, with every version of every library.
"""

from typing import Final

from engine.expressions.errors import ExpressionError
from engine.expressions.evaluator import evaluate, evaluate_counted, holds
from engine.expressions.names import names_of
from engine.expressions.nodes import Expression
from engine.expressions.parser import parse

LANGUAGE_VERSION: Final = 1
"""Rises when an expression could give something else than before."""

__all__ = [
    "LANGUAGE_VERSION",
    "Expression",
    "ExpressionError",
    "evaluate",
    "evaluate_counted",
    "holds",
    "names_of",
    "parse",
]
