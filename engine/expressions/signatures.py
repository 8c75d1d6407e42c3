"""The functions' names and arguments, which parser and evaluator share."""

from dataclasses import dataclass
from typing import Final

from engine.contracts.limits import EXPRESSION_LENGTH_MAX


@dataclass(frozen=True, slots=True)
class Signature:
    usage: str
    arguments_min: int
    arguments_max: int
    takes_lambda: bool = False
    takes_path: bool = False


def _of_list(name: str) -> Signature:
    return Signature(f"{name}(list, x => expression)", 2, 2, takes_lambda=True)


SIGNATURES: Final[dict[str, Signature]] = {
    "all": _of_list("all"),
    "any": _of_list("any"),
    "contains": Signature("contains(whole, part)", 2, 2),
    "ends_with": Signature("ends_with(text, end)", 2, 2),
    "filter": _of_list("filter"),
    "has": Signature("has(path), as in has(input.field)", 1, 1, takes_path=True),
    "keys": Signature("keys(object)", 1, 1),
    "lower": Signature("lower(text)", 1, 1),
    "map": _of_list("map"),
    "matches": Signature('matches(text, pattern), as in matches(input.file, "*.csv")', 2, 2),
    "max": Signature("max(list) or max(a, b, ...)", 1, EXPRESSION_LENGTH_MAX),
    "min": Signature("min(list) or min(a, b, ...)", 1, EXPRESSION_LENGTH_MAX),
    "range": Signature("range(end) or range(start, end)", 1, 2),
    "size": Signature("size(text, list or object)", 1, 1),
    "starts_with": Signature("starts_with(text, beginning)", 2, 2),
    "sum": Signature("sum(list)", 1, 1),
    "upper": Signature("upper(text)", 1, 1),
    "values": Signature("values(object)", 1, 1),
}
