"""Finds what is certainly wrong with an expression: names that are not there, and kinds that cannot fit."""

from collections.abc import Callable, Mapping
from typing import Final

from engine.expressions import Expression, nodes
from planner.language.shapes import ANY, KINDS, Shape, of_kinds

Report = Callable[[str, int, str], None]
"""(code, character, message)."""

TYPE: Final = "EXPRESSION_TYPE"
UNKNOWN: Final = "EXPRESSION_UNKNOWN_NAME"
CONDITION: Final = frozenset({"boolean", "null"})

_RESULTS: Final[Mapping[str, frozenset[str]]] = {
    "all": frozenset({"boolean"}),
    "any": frozenset({"boolean"}),
    "contains": frozenset({"boolean"}),
    "ends_with": frozenset({"boolean"}),
    "filter": frozenset({"list"}),
    "has": frozenset({"boolean"}),
    "keys": frozenset({"list"}),
    "lower": frozenset({"string"}),
    "map": frozenset({"list"}),
    "matches": frozenset({"boolean"}),
    "range": frozenset({"list"}),
    "size": frozenset({"number"}),
    "starts_with": frozenset({"boolean"}),
    "sum": frozenset({"number"}),
    "upper": frozenset({"string"}),
    "values": frozenset({"list"}),
}
_FIRST_ARGUMENT: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("all", "any", "filter", "map", "sum"), frozenset({"list"})),
    **dict.fromkeys(("keys", "values"), frozenset({"object"})),
    **dict.fromkeys(("lower", "upper", "starts_with", "ends_with", "matches"), frozenset({"string"})),
    "range": frozenset({"number"}),
    "size": frozenset({"string", "list", "object"}),
}


class Inference:
    """Goes through one expression with what is known of its names."""

    def __init__(self, names: Mapping[str, Shape], report: Report) -> None:
        self._names = dict(names)
        self._report = report

    def shape(self, expression: Expression) -> Shape:
        return self._of(expression.root)

    def _of(self, node: nodes.Node) -> Shape:
        match node:
            case nodes.Literal(value=value):
                return of_kinds(_kind_of(value))
            case nodes.Name():
                return self._name(node)
            case nodes.Path():
                return self._path(node)
            case nodes.ListLiteral(items=items):
                for item in items:
                    self._of(item)
                return of_kinds("list")
            case nodes.ObjectLiteral(entries=entries):
                return Shape(
                    frozenset({"object"}), {key: self._of(value) for key, value in entries}, closed=True, sure=True
                )
            case nodes.Not(operand=operand):
                self._need(operand, CONDITION, "not needs true, false or null")
                return of_kinds("boolean")
            case nodes.Negative(operand=operand):
                self._need(operand, frozenset({"number"}), "- needs a number")
                return of_kinds("number")
            case nodes.Conjunction(operands=operands) | nodes.Disjunction(operands=operands):
                for operand in operands:
                    self._need(operand, CONDITION, "and, or need conditions")
                return of_kinds("boolean")
            case nodes.Comparison():
                return self._comparison(node)
            case nodes.Arithmetic():
                return self._arithmetic(node)
            case nodes.Choice():
                return self._choice(node)
            case nodes.Call():
                return self._call(node)
        return ANY

    def _need(self, node: nodes.Node, kinds: frozenset[str], message: str) -> Shape:
        shape = self._of(node)
        if not shape.kinds & kinds:
            self._report(TYPE, node.at, f"{message}, not {_shown(shape)}")
        return shape

    def _name(self, node: nodes.Name) -> Shape:
        shape = self._names.get(node.name)
        if shape is None:
            self._report(UNKNOWN, node.at, f"there is no {node.name} here; there are {', '.join(sorted(self._names))}")
            return ANY
        return shape

    def _path(self, node: nodes.Path) -> Shape:
        shape = self._of(node.base)
        for step in node.steps:
            key = self._of(step)
            if not shape.kinds & {"object", "list", "null"}:
                self._report(TYPE, step.at, f"{_shown(shape)} has no fields or elements")
                return ANY
            if isinstance(step, nodes.Literal) and isinstance(step.value, str) and shape.kinds <= {"object", "null"}:
                found = shape.of_field(step.value)
                if found is None:
                    known = ", ".join(sorted(shape.fields)) or "none"
                    self._report(UNKNOWN, step.at, f"there is no field {step.value} here; there are {known}")
                    return ANY
                shape = found
            else:
                if not key.kinds & {"string", "number"}:
                    self._report(TYPE, step.at, f"a field is a string, an index a number, not {_shown(key)}")
                shape = ANY
        return shape

    def _comparison(self, node: nodes.Comparison) -> Shape:
        left, right = self._of(node.left), self._of(node.right)
        if node.operator in ("<", "<=", ">", ">="):
            ordered = left.kinds & right.kinds & {"number", "string"}
            if not ordered:
                message = f"only two numbers or two strings can be ordered, not {_shown(left)} and {_shown(right)}"
                self._report(TYPE, node.at, message)
        elif node.operator in ("in", "not in") and not right.kinds & {"list", "object", "string"}:
            self._report(
                TYPE, node.at, f"{node.operator} looks into a list, an object or a string, not {_shown(right)}"
            )
        return of_kinds("boolean")

    def _arithmetic(self, node: nodes.Arithmetic) -> Shape:
        kinds = self._of(node.first).kinds
        for operator, at, operand in node.rest:
            allowed = frozenset({"number", "string", "list"}) if operator == "+" else frozenset({"number"})
            other = self._of(operand).kinds
            common = kinds & other & allowed
            if not common:
                wanted = "two numbers, two strings or two lists" if operator == "+" else "two numbers"
                message = f"{operator} needs {wanted}, not {_named(kinds)} and {_named(other)}"
                self._report(TYPE, at, message)
                return ANY
            kinds = common
        return Shape(kinds)

    def _choice(self, node: nodes.Choice) -> Shape:
        kinds: frozenset[str] = frozenset()
        for condition, value in node.cases:
            self._need(condition, CONDITION, "a condition must be true, false or null")
            kinds |= self._of(value).kinds
        return Shape(kinds | self._of(node.otherwise).kinds)

    def _call(self, node: nodes.Call) -> Shape:
        wanted = _FIRST_ARGUMENT.get(node.function, KINDS)
        for number, argument in enumerate(node.arguments):
            if isinstance(argument, nodes.Lambda):
                self._lambda(node.function, argument)
            elif number == 0:
                self._need(argument, wanted, f"{node.function} needs {_named(wanted)}")
            else:
                self._of(argument)
        return Shape(_RESULTS.get(node.function, KINDS))

    def _lambda(self, function: str, node: nodes.Lambda) -> None:
        hidden = self._names.get(node.parameter)
        self._names[node.parameter] = ANY
        if function == "map":
            self._of(node.body)
        else:
            self._need(node.body, CONDITION, f"{function} needs a condition")
        if hidden is None:
            del self._names[node.parameter]
        else:
            self._names[node.parameter] = hidden


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _named(kinds: frozenset[str]) -> str:
    article = {"null": "null", "object": "an object"}
    return " or ".join(article.get(kind, f"a {kind}") for kind in sorted(kinds))


def _shown(shape: Shape) -> str:
    return _named(shape.kinds)
