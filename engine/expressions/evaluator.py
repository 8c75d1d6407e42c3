"""Evaluates expressions over JSON in a bounded number of steps. What it answers depends on its arguments alone.

Every node costs a step, and so does every element and every 64 characters that an operation goes through. No
attribute of a Python object is ever looked up by a name from an expression: names, fields and functions are keys.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.contracts.limits import EXPRESSION_STEPS_MAX
from engine.expressions import nodes
from engine.expressions.errors import (
    DivisionByZeroError,
    ExpressionTypeError,
    TooManyStepsError,
    UnknownNameError,
    ValueTooLargeError,
)
from engine.expressions.functions import FUNCTIONS
from engine.expressions.nodes import Expression, Node
from engine.expressions.signatures import SIGNATURES
from engine.expressions.values import (
    CHARACTERS_A_STEP,
    ELEMENTS_MAX,
    STRING_LENGTH_MAX,
    check_size,
    contained,
    equal,
    in_range,
    is_number,
    kind_of,
    less,
    operand,
)

_MISSING: Final = object()


def evaluate(expression: Expression, names: Mapping[str, Any], *, steps_max: int = EXPRESSION_STEPS_MAX) -> Any:
    """The expression's value. `names` holds JSON values and is not changed; the result may share parts with it.

    Raises ExpressionError, whatever the values are.
    """
    evaluation = _Evaluation(names, steps_max)
    value = evaluation.value(expression.root)
    if evaluation.made:
        check_size(expression.root.at, value)
    return value


def evaluate_counted(expression: Expression, names: Mapping[str, Any], *, steps_max: int) -> tuple[Any, int]:
    """As `evaluate`, with how many steps it took: for those who share a number of steps out."""
    evaluation = _Evaluation(names, steps_max)
    value = evaluation.value(expression.root)
    if evaluation.made:
        check_size(expression.root.at, value)
    return value, evaluation.steps_taken


def holds(expression: Expression, names: Mapping[str, Any], *, steps_max: int = EXPRESSION_STEPS_MAX) -> bool:
    """Whether a condition is true: null counts as false, and what is neither is an ExpressionError."""
    return _truth(expression.root.at, evaluate(expression, names, steps_max=steps_max))


def _truth(at: int, value: Any) -> bool:
    if value is None:
        return False
    if type(value) is bool:
        return value
    raise ExpressionTypeError(at, f"a condition must be true, false or null, not {kind_of(value)}; compare it")


class _Evaluation:
    def __init__(self, names: Mapping[str, Any], steps_max: int) -> None:
        self._names = dict(names)
        self._steps_max = steps_max
        self._steps_left = steps_max
        self._at = 1
        self.made = False
        """Whether lists or objects were made, which may hold one value many times."""

    @property
    def steps_taken(self) -> int:
        return self._steps_max - self._steps_left

    def spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise TooManyStepsError(
                self._at, f"the evaluation takes more than {self._steps_max} steps; go through fewer or smaller values"
            )

    def value(self, node: Node) -> Any:
        self._at = node.at
        self.spend(1)
        return _EVALUATORS[type(node)](self, node)

    def truth(self, node: Node) -> bool:
        return _truth(node.at, self.value(node))

    def literal(self, node: nodes.Literal) -> Any:
        return node.value

    def name(self, node: nodes.Name) -> Any:
        value = self._names.get(node.name, _MISSING)
        if value is _MISSING:
            known = ", ".join(sorted(name for name in self._names if type(name) is str))
            raise UnknownNameError(node.at, f"there is no {node.name} here; there is {known or 'no name at all'}")
        return value

    def list_literal(self, node: nodes.ListLiteral) -> Any:
        self.made = True
        return [self.value(item) for item in node.items]

    def object_literal(self, node: nodes.ObjectLiteral) -> Any:
        self.made = True
        return {key: self.value(value) for key, value in node.entries}

    def path(self, node: nodes.Path) -> Any:
        value = self.value(node.base)
        for step in node.steps:
            value = self._taken(step.at, value, self.value(step))
        return value

    def _taken(self, at: int, whole: Any, key: Any) -> Any:
        """A field or an element. Of null, and where there is none: null."""
        if whole is None:
            return None
        if type(whole) is dict and type(key) is str:
            return whole.get(key)
        if type(whole) is list and type(key) is int:
            return whole[key] if -len(whole) <= key < len(whole) else None
        if type(whole) in (dict, list):
            wanted = "a string" if type(whole) is dict else "an integer"
            raise ExpressionTypeError(at, f"{kind_of(whole)} is indexed with {wanted}, not with {kind_of(key)}")
        raise ExpressionTypeError(at, f"{kind_of(whole)} has no fields or elements")

    def negation(self, node: nodes.Not) -> Any:
        return not self.truth(node.operand)

    def negative(self, node: nodes.Negative) -> Any:
        value = self.value(node.operand)
        if not is_number(value):
            raise ExpressionTypeError(node.at, f"- needs a number, not {kind_of(value)}")
        return in_range(node.at, -value)

    def conjunction(self, node: nodes.Conjunction) -> Any:
        return all(self.truth(operand) for operand in node.operands)

    def disjunction(self, node: nodes.Disjunction) -> Any:
        return any(self.truth(operand) for operand in node.operands)

    def choice(self, node: nodes.Choice) -> Any:
        for condition, value in node.cases:
            if self.truth(condition):
                return self.value(value)
        return self.value(node.otherwise)

    def comparison(self, node: nodes.Comparison) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        self._at = node.at
        match node.operator:
            case "==":
                return equal(left, right, self.spend)
            case "!=":
                return not equal(left, right, self.spend)
            case "<":
                return less(node.at, left, right, self.spend)
            case "<=":
                return not less(node.at, right, left, self.spend)
            case ">":
                return less(node.at, right, left, self.spend)
            case ">=":
                return not less(node.at, left, right, self.spend)
            case "in":
                return contained(node.at, left, right, self.spend)
            case _:
                return not contained(node.at, left, right, self.spend)

    def arithmetic(self, node: nodes.Arithmetic) -> Any:
        left = self.value(node.first)
        for operator, at, operand_node in node.rest:
            right = self.value(operand_node)
            self._at = at
            left = self._combined(operator, at, left, right)
        return left

    def _combined(self, operator: str, at: int, left: Any, right: Any) -> Any:
        if is_number(left) and is_number(right):
            return _calculated(operator, at, operand(at, left), operand(at, right))
        if operator == "+" and type(left) is type(right) and type(left) in (str, list):
            return self._joined(at, left, right)
        wanted = "two numbers, two strings or two lists" if operator == "+" else "two numbers"
        raise ExpressionTypeError(at, f"{operator} needs {wanted}, not {kind_of(left)} and {kind_of(right)}")

    def _joined(self, at: int, left: Any, right: Any) -> Any:
        length, is_text = len(left) + len(right), type(left) is str
        longest = STRING_LENGTH_MAX if is_text else ELEMENTS_MAX
        if length > longest:
            raise ValueTooLargeError(at, f"{kind_of(left)} made here has {length} parts; at most {longest} are allowed")
        self.spend(length // CHARACTERS_A_STEP if is_text else length)
        self.made = self.made or not is_text
        return left + right

    def call(self, node: nodes.Call) -> Any:
        if node.function == "has":
            return self._has(node.arguments[0])
        if node.function in _OVER_LISTS:
            elements, body = self.value(node.arguments[0]), node.arguments[1]
            self._at = node.at
            if type(elements) is not list:
                raise ExpressionTypeError(node.at, f"{node.function} needs a list, not {kind_of(elements)}")
            return self._over_list(node.function, elements, body)
        arguments = [self.value(argument) for argument in node.arguments]
        self._at = node.at
        return FUNCTIONS[node.function](node.at, arguments, self.spend)

    def _has(self, path: Node) -> bool:
        """Whether the path's last field or element is there, null or not."""
        assert isinstance(path, nodes.Path)  # noqa: S101 - the parser lets nothing else through
        whole = self.value(path.base)
        for step in path.steps[:-1]:
            whole = self._taken(step.at, whole, self.value(step))
        last = path.steps[-1]
        key = self.value(last)
        self._taken(last.at, whole, key)
        if type(whole) is dict:
            return key in whole
        return type(whole) is list and -len(whole) <= key < len(whole)

    def _over_list(self, function: str, elements: list[Any], node: Node) -> Any:
        assert isinstance(node, nodes.Lambda)  # noqa: S101 - the parser lets nothing else through
        parameter, body = node.parameter, node.body
        hidden = self._names.get(parameter, _MISSING)

        def bound(element: Any) -> Node:
            self._names[parameter] = element
            return body

        try:
            match function:
                case "map":
                    self.made = True
                    return [self.value(bound(element)) for element in elements]
                case "filter":
                    return [element for element in elements if self.truth(bound(element))]
                case "any":
                    return any(self.truth(bound(element)) for element in elements)
                case _:
                    return all(self.truth(bound(element)) for element in elements)
        finally:
            if hidden is _MISSING:
                self._names.pop(parameter, None)
            else:
                self._names[parameter] = hidden


def _calculated(operator: str, at: int, left: int | float, right: int | float) -> int | float:
    match operator:
        case "+":
            return in_range(at, left + right)
        case "-":
            return in_range(at, left - right)
        case "*":
            return in_range(at, left * right)
    if right == 0:
        raise DivisionByZeroError(at, f"{operator} by zero; test the divisor first, as in n != 0 and total / n > 1")
    if operator == "%":
        return in_range(at, left % right)
    if type(left) is int and type(right) is int and left % right == 0:
        return in_range(at, left // right)
    return in_range(at, left / right)


_OVER_LISTS: Final = frozenset(name for name, signature in SIGNATURES.items() if signature.takes_lambda)

_EVALUATORS: Final[dict[type[Node], Callable[[_Evaluation, Any], Any]]] = {
    nodes.Literal: _Evaluation.literal,
    nodes.Name: _Evaluation.name,
    nodes.ListLiteral: _Evaluation.list_literal,
    nodes.ObjectLiteral: _Evaluation.object_literal,
    nodes.Path: _Evaluation.path,
    nodes.Not: _Evaluation.negation,
    nodes.Negative: _Evaluation.negative,
    nodes.Conjunction: _Evaluation.conjunction,
    nodes.Disjunction: _Evaluation.disjunction,
    nodes.Choice: _Evaluation.choice,
    nodes.Comparison: _Evaluation.comparison,
    nodes.Arithmetic: _Evaluation.arithmetic,
    nodes.Call: _Evaluation.call,
}
