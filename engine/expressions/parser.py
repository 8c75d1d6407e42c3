"""Tokens to a syntax tree: precedence climbing, with limits on length and nesting."""

from typing import Final

from engine.contracts.limits import EXPRESSION_LENGTH_MAX
from engine.expressions import nodes
from engine.expressions.errors import ExpressionSyntaxError
from engine.expressions.nodes import Expression, Node
from engine.expressions.signatures import SIGNATURES, Signature
from engine.expressions.tokens import Kind, Token, tokenize

NESTING_MAX: Final = 64
"""Bounds the recursion of parser and evaluator."""

_CHOICE, _OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN = range(1, 9)
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "not"})
_SUMS: Final = frozenset({"+", "-"})
_PRODUCTS: Final = frozenset({"*", "/", "%"})
_STEPS: Final = frozenset({".", "["})
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_SHOWN_MAX: Final = 40
_TOO_DEEP: Final = f"the expression is nested deeper than {NESTING_MAX}; split it into several tasks' conditions"


def parse(text: str) -> Expression:
    """Raises ExpressionSyntaxError."""
    if len(text) > EXPRESSION_LENGTH_MAX:
        message = f"the expression has {len(text)} characters; at most {EXPRESSION_LENGTH_MAX} are allowed"
        raise ExpressionSyntaxError(EXPRESSION_LENGTH_MAX + 1, message)
    root = _Parser(tokenize(text)).whole()
    _check_depth(root)
    return Expression(text, root)


def _check_depth(root: Node) -> None:
    """The parser's own nesting does not bound the tree's: `a * 1 + 1 == 1` is three deep without any."""
    pending = [(root, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > NESTING_MAX:
            raise ExpressionSyntaxError(node.at, _TOO_DEEP)
        pending.extend((child, depth + 1) for child in nodes.children(node))


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._nesting = 0
        self._token = tokens[0]
        self._symbol = tokens[0].symbol

    def whole(self) -> Node:
        if self._tokens[0].kind is Kind.END:
            raise ExpressionSyntaxError(1, "the expression is empty; write a condition such as input.count > 0")
        root = self._expression(_CHOICE)
        if self._index < len(self._tokens) - 1:
            raise self._unexpected("an operator or the end")
        return root

    def _take(self) -> Token:
        """The token, after which the next one is there. The last is never taken."""
        token = self._token
        self._index += 1
        self._token = self._tokens[self._index]
        self._symbol = self._token.symbol
        return token

    def _expect(self, symbol: str) -> Token:
        if self._symbol != symbol:
            raise self._unexpected(symbol)
        return self._take()

    def _unexpected(self, wanted: str) -> ExpressionSyntaxError:
        token = self._token
        found = "the end" if token.kind is Kind.END else ascii(token.text[:_SHOWN_MAX])
        return ExpressionSyntaxError(token.at, f"expected {wanted}, found {found}")

    def _expression(self, level: int) -> Node:
        """An expression whose operators bind at least as strongly as `level`."""
        self._nesting += 1
        if self._nesting > NESTING_MAX:
            raise ExpressionSyntaxError(self._token.at, _TOO_DEEP)
        left = self._prefix()
        if self._symbol in _PRODUCTS and level <= _PRODUCT:
            left = self._chain(left, _PRODUCT, _PRODUCTS)
        if self._symbol in _SUMS and level <= _SUM:
            left = self._chain(left, _SUM, _SUMS)
        if self._symbol in _COMPARISONS and level <= _COMPARISON:
            left = self._comparison(left)
        if self._symbol == "and" and level <= _AND:
            left = nodes.Conjunction(left.at, self._operands(left, "and", _NOT))
        if self._symbol == "or" and level <= _OR:
            left = nodes.Disjunction(left.at, self._operands(left, "or", _AND))
        if self._symbol == "?" and level <= _CHOICE:
            left = self._choice(left)
        self._nesting -= 1
        return left

    def _prefix(self) -> Node:
        if self._symbol == "not":
            return nodes.Not(self._take().at, self._expression(_NOT))
        if self._symbol == "-":
            return nodes.Negative(self._take().at, self._expression(_SIGN))
        return self._path()

    def _chain(self, first: Node, level: int, operators: frozenset[str]) -> Node:
        rest = []
        while self._symbol in operators:
            operator = self._take()
            rest.append((operator.text, operator.at, self._expression(level + 1)))
        return nodes.Arithmetic(first.at, first, tuple(rest)) if rest else first

    def _comparison(self, left: Node) -> Node:
        operator = self._take()
        name = operator.text
        if name == "not":
            self._expect("in")
            name = "not in"
        right = self._expression(_SUM)
        if self._symbol in _COMPARISONS:
            message = "comparisons cannot be chained; write a < b and b < c, or put one of them in parentheses"
            raise ExpressionSyntaxError(self._token.at, message)
        return nodes.Comparison(operator.at, name, left, right)

    def _operands(self, first: Node, operator: str, level: int) -> tuple[Node, ...]:
        operands = [first]
        while self._symbol == operator:
            self._take()
            operands.append(self._expression(level))
        return tuple(operands)

    def _choice(self, condition: Node) -> Node:
        at, cases = condition.at, []
        while True:
            self._expect("?")
            value = self._expression(_CHOICE)
            self._expect(":")
            cases.append((condition, value))
            condition = self._expression(_OR)
            if self._symbol != "?":
                return nodes.Choice(at, tuple(cases), condition)

    def _path(self) -> Node:
        base = self._primary()
        steps: list[Node] = []
        while self._symbol in _STEPS:
            if self._take().symbol == ".":
                steps.append(self._field())
            else:
                steps.append(self._expression(_CHOICE))
                self._expect("]")
        return nodes.Path(base.at, base, tuple(steps)) if steps else base

    def _field(self) -> Node:
        if self._token.kind not in (Kind.NAME, Kind.KEYWORD):
            raise self._unexpected('a field\'s name (one with other characters is written ["the-name"])')
        field = self._take()
        if self._symbol == "(":
            message = f"functions are not called with a dot; write {field.text}(value, ...)"
            raise ExpressionSyntaxError(field.at, message)
        return nodes.Literal(field.at, field.text)

    def _primary(self) -> Node:
        token = self._token
        if token.kind is Kind.LITERAL:
            self._take()
            return nodes.Literal(token.at, token.value)
        if token.kind is Kind.KEYWORD and token.text in _CONSTANTS:
            self._take()
            return nodes.Literal(token.at, _CONSTANTS[token.text])
        if token.kind is Kind.NAME:
            self._take()
            return self._call(token) if self._symbol == "(" else nodes.Name(token.at, token.text)
        if self._symbol == "(":
            self._take()
            inner = self._expression(_CHOICE)
            self._expect(")")
            return inner
        if self._symbol == "[":
            return self._list()
        if self._symbol == "{":
            return self._object()
        raise self._unexpected("a value, a name or (")

    def _list(self) -> Node:
        at = self._expect("[").at
        items: list[Node] = []
        while self._symbol != "]":
            items.append(self._expression(_CHOICE))
            if self._symbol != "]":
                self._expect(",")
        self._take()
        return nodes.ListLiteral(at, tuple(items))

    def _object(self) -> Node:
        at = self._expect("{").at
        entries: dict[str, Node] = {}
        while self._symbol != "}":
            key = self._key()
            self._expect(":")
            entries[key] = self._expression(_CHOICE)
            if self._symbol != "}":
                self._expect(",")
        self._take()
        return nodes.ObjectLiteral(at, tuple(entries.items()))

    def _key(self) -> str:
        token = self._token
        if token.kind in (Kind.NAME, Kind.KEYWORD):
            return self._take().text
        if token.kind is Kind.LITERAL and isinstance(token.value, str):
            self._take()
            return token.value
        raise self._unexpected("a key: a name or a string")

    def _call(self, name: Token) -> Node:
        signature = SIGNATURES.get(name.text)
        if signature is None:
            known = ", ".join(sorted(SIGNATURES))
            raise ExpressionSyntaxError(name.at, f"there is no function {name.text}; there are {known}")
        self._expect("(")
        arguments: list[Node] = []
        while self._symbol != ")":
            arguments.append(self._argument(signature, len(arguments)))
            if self._symbol != ")":
                self._expect(",")
        self._take()
        if not signature.arguments_min <= len(arguments) <= signature.arguments_max:
            raise ExpressionSyntaxError(name.at, f"{name.text} is used as {signature.usage}")
        if signature.takes_path and not isinstance(arguments[0], nodes.Path):
            raise ExpressionSyntaxError(arguments[0].at, f"{name.text} is used as {signature.usage}")
        return nodes.Call(name.at, name.text, tuple(arguments))

    def _argument(self, signature: Signature, number: int) -> Node:
        if not (signature.takes_lambda and number == 1):
            return self._expression(_CHOICE)
        parameter = self._token
        if parameter.kind is not Kind.NAME:
            raise self._unexpected(f"a name and =>, as in {signature.usage}")
        self._take()
        self._expect("=>")
        return nodes.Lambda(parameter.at, parameter.text, self._expression(_CHOICE))
