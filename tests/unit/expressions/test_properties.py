"""Expressions against simple oracles, and against anything at all."""

import fnmatch
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.contracts.limits import EXPRESSION_LENGTH_MAX
from engine.expressions import ExpressionError, evaluate, names_of, parse
from engine.expressions.signatures import SIGNATURES

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other work on the machine must not fail a test."""

ROOTS = ("input", "results", "x", "y")
FIELDS = ("a", "b", "in", "x")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "a", "ab", "B", "😀"]),
    st.text(max_size=5),
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
symbols = [
    *"()[]{}.,:?+-*/%<>=!&|\"'\\ \n",
    "=>",
    "==",
    "!=",
    "<=",
    "filter(x, y => ",
    "[0]",
    ".a",
    "é",
    "\x00",
    "\ud800",
]
words = ["and", "or", "not", "in", "true", "null", "0", "12", "1.5", "1e9", '"a"', "'b'", *SIGNATURES, *ROOTS]
fragments = st.sampled_from([*symbols, *words])


def literal(value: Any) -> str:
    return json.dumps(value)


def applied(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions made of expressions, of every kind and of whatever types."""
    binary = ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
    plain = [name for name, signature in SIGNATURES.items() if not (signature.takes_lambda or signature.takes_path)]
    one = [name for name in plain if SIGNATURES[name].arguments_min == 1]
    two = [name for name in plain if SIGNATURES[name].arguments_min == 2]
    over_lists = [name for name, signature in SIGNATURES.items() if signature.takes_lambda]
    return st.one_of(
        st.tuples(inner, st.sampled_from(binary), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})"),
        st.tuples(st.sampled_from(["-", "not "]), inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]}) ? ({p[1]}) : ({p[2]})"),
        st.tuples(inner, st.sampled_from(FIELDS)).map(lambda p: f"({p[0]}).{p[1]}"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]})[{p[1]}]"),
        st.tuples(st.sampled_from(one), inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(st.sampled_from(two), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
        st.tuples(st.sampled_from(over_lists), inner, st.sampled_from(["x", "y"]), inner).map(
            lambda p: f"{p[0]}({p[1]}, {p[2]} => {p[3]})"
        ),
        st.tuples(st.sampled_from(ROOTS), st.sampled_from(FIELDS)).map(lambda p: f"has({p[0]}.{p[1]})"),
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(st.sampled_from(FIELDS), inner), max_size=3).map(
            lambda entries: "{" + ", ".join(f"{key}: {value}" for key, value in entries) + "}"
        ),
    )


def refusal(text: str) -> ExpressionError | None:
    """Why the text cannot be read. Of those that are made to be readable, only the very deep ones cannot."""
    try:
        parse(text)
    except ExpressionError as error:
        return error
    return None


finite = scalars.filter(lambda v: v not in (math.inf, -math.inf) and v == v)
leaves = st.one_of(
    st.sampled_from(ROOTS),
    st.tuples(st.sampled_from(ROOTS), st.sampled_from(FIELDS)).map(".".join),
    finite.filter(lambda v: not isinstance(v, int | str) or isinstance(v, bool)).map(literal),
    st.integers(-9, 9).map(str),
    st.sampled_from(['"a"', "'ab'", '""']),
)
expressions = st.recursive(leaves, applied, max_leaves=10).filter(lambda text: refusal(text) is None)


def is_json(value: Any) -> bool:
    match value:
        case bool() | None | str() | int() | float():
            return True
        case list():
            return all(map(is_json, value))
        case dict():
            return all(type(key) is str and is_json(item) for key, item in value.items())
    return False


@steady
@given(st.lists(fragments, max_size=30).map("".join) | st.lists(fragments, max_size=30).map(" ".join) | st.text())
def test_any_text_is_an_expression_or_an_expression_error(text: str) -> None:
    refused = refusal(text)
    if refused is None:
        assert parse(text).text == text
    else:
        assert refused.code == "EXPRESSION_SYNTAX"
        assert 1 <= refused.data["position"] <= len(text) + 1


@steady
@given(st.recursive(leaves, applied, max_leaves=10))
def test_what_is_made_by_the_grammar_can_be_read_unless_it_is_too_long_or_too_deep(text: str) -> None:
    refused = refusal(text)
    assert refused is None or "nested deeper" in refused.message or len(text) > EXPRESSION_LENGTH_MAX


@settings(steady, max_examples=500)
@given(expressions, st.fixed_dictionaries(dict.fromkeys(ROOTS, json_values)), st.integers(0, 300))
def test_any_expression_on_any_values_has_a_value_or_an_expression_error(
    text: str, names: dict[str, Any], steps: int
) -> None:
    parsed = parse(text)
    before = repr(names)
    first = outcome(parsed, names, 100_000)
    assert first[0] in (
        "value",
        "EXPRESSION_TYPE",
        "EXPRESSION_DIVISION",
        "EXPRESSION_TOO_LARGE",
        "EXPRESSION_TOO_LONG",
    )
    assert outcome(parsed, names, 100_000) == first
    limited = outcome(parsed, names, steps)
    assert limited[0] == "EXPRESSION_TOO_LONG" or limited == first
    assert repr(names) == before


def outcome(parsed: Any, names: dict[str, Any], steps: int) -> tuple[str, str]:
    try:
        found = evaluate(parsed, names, steps_max=steps)
    except ExpressionError as error:
        return error.code, "" if error.code == "EXPRESSION_TOO_LONG" else error.message
    assert is_json(found)
    return "value", repr(found)


@steady
@given(expressions, st.fixed_dictionaries(dict.fromkeys(ROOTS, json_values)))
def test_an_expression_needs_no_other_names_than_it_says(text: str, names: dict[str, Any]) -> None:
    parsed = parse(text)
    used = names_of(parsed)
    kept: dict[str, Any] = {}
    for root, field in used:
        whole = names[root]
        if field is None or not isinstance(whole, dict):
            kept[root] = whole
        elif (root, None) not in used:
            kept.setdefault(root, {})
            if field in whole:
                kept[root][field] = whole[field]
    assert outcome(parsed, kept, 100_000) == outcome(parsed, names, 100_000)


numbers = st.integers(0, 12).map(str)
sums = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "%"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=8,
)
comparisons = st.tuples(sums, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), sums).map(" ".join)
booleans = st.recursive(
    comparisons | st.sampled_from(["True", "False"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("not ({})".format),
    ),
    max_leaves=6,
)


@settings(steady, max_examples=300)
@given(sums | booleans)
@example("- 2 % 3 * 4 - 1")
@example("not (1 == 2) or 3 < 4 and False")
def test_precedence_and_values_are_pythons_for_integers_and_booleans(text: str) -> None:
    ours = text.replace("True", "true").replace("False", "false")
    try:
        expected = eval(text, {"__builtins__": {}})  # noqa: S307 - made of numbers and operators alone
    except ZeroDivisionError:
        with pytest.raises(ExpressionError) as caught:
            evaluate(parse(ours), {})
        assert caught.value.code == "EXPRESSION_DIVISION"
    else:
        found = evaluate(parse(ours), {})
        assert found == expected
        assert type(found) is type(expected)


def calculated(operator: str, a: Any, b: Any) -> Any:
    if operator == "/" and isinstance(a, int) and isinstance(b, int) and a % b == 0:
        return a // b
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b, "%": lambda: a % b}[
        operator
    ]()


@settings(steady, max_examples=300)
@given(
    st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from("+-*/%"),
    st.integers(-(2**63), 2**64 - 1) | st.integers(-4, 4) | st.floats(allow_nan=False, allow_infinity=False),
)
def test_numbers_stay_in_range_or_are_refused(a: Any, operator: str, b: Any) -> None:
    parsed = parse(f"a {operator} b")
    try:
        expected = calculated(operator, a, b)
    except ZeroDivisionError:
        assert outcome(parsed, {"a": a, "b": b}, 100)[0] == "EXPRESSION_DIVISION"
        return
    carried = math.isfinite(expected) if isinstance(expected, float) else -(2**63) <= expected <= 2**64 - 1
    if carried:
        assert outcome(parsed, {"a": a, "b": b}, 100) == ("value", repr(expected))
    else:
        assert outcome(parsed, {"a": a, "b": b}, 100)[0] == "EXPRESSION_TOO_LARGE"


def same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b and math.isfinite(a)
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@settings(steady, max_examples=300)
@given(json_values, json_values)
@example([1, True], [1, 1])
@example({"a": 0.0}, {"a": False})
def test_equality_is_that_of_json(a: Any, b: Any) -> None:
    for left, right in ((a, b), (a, json.loads(json.dumps(a)))):
        names = {"a": left, "b": right}
        assert evaluate(parse("a == b"), names) is same(left, right)
        assert evaluate(parse("a != b"), names) is not same(left, right)
        assert evaluate(parse("a in b"), {"a": left, "b": [right]}) is same(left, right)


@settings(steady, max_examples=300)
@given(st.text("ab*", max_size=10), st.text("ab*?", max_size=8))
def test_patterns_match_as_those_of_files_do(text: str, pattern: str) -> None:
    found = evaluate(parse("matches(text, pattern)"), {"text": text, "pattern": pattern})
    assert found is fnmatch.fnmatchcase(text, pattern)


@steady
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-100, 100), max_size=6))
def test_sums_are_added_from_left_to_right(numbers: list[Any]) -> None:
    total: Any = 0
    for number in numbers:
        total = total + number
        if isinstance(total, float) and not math.isfinite(total):
            assert outcome(parse("sum(l)"), {"l": numbers}, 100)[0] == "EXPRESSION_TOO_LARGE"
            return
    assert outcome(parse("sum(l)"), {"l": numbers}, 100) == ("value", repr(total))


@steady
@given(st.lists(st.text() | st.integers(), max_size=6))
def test_extremes_are_pythons_where_all_is_of_one_kind(values: list[Any]) -> None:
    kinds = {type(value) for value in values}
    for name, function in (("min", min), ("max", max)):
        found = outcome(parse(f"{name}(l)"), {"l": values}, 1_000)
        if len(kinds) > 1:
            assert found[0] == "EXPRESSION_TYPE"
        else:
            assert found == ("value", repr(function(values) if values else None))


@steady
@given(st.text().filter(lambda text: "\x00" not in text and not any("\ud800" <= c <= "\udfff" for c in text)))
def test_every_json_string_is_a_literal(text: str) -> None:
    assert evaluate(parse(json.dumps(text)), {}) == text
    assert evaluate(parse(json.dumps(text, ensure_ascii=False)), {}) == text
