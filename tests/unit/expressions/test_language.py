"""What expressions mean, as docs/expressions.md has it."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.contracts.limits import EXPRESSION_LENGTH_MAX
from engine.errors import EngineError
from engine.expressions import LANGUAGE_VERSION, Expression, ExpressionError, evaluate, holds, names_of, parse
from engine.expressions.functions import FUNCTIONS
from engine.expressions.signatures import SIGNATURES

PAGE = (Path(engine.__file__).parents[1] / "docs" / "expressions.md").read_text()
NAMES: dict[str, Any] = {
    "input": {
        "n": 3,
        "name": "Ada",
        "none": None,
        "flag": True,
        "list": [1, 2, 3],
        "rows": [{"n": 1, "tag": "a"}, {"n": 2, "tag": "b"}, {"n": 3}],
        "in": {"not": "keyword"},
    },
    "results": {"scan-all": {"count": 2}, "b": 7},
}


def value(text: str, **names: Any) -> Any:
    return evaluate(parse(text), {**NAMES, **names})


def refusal(text: str, **names: Any) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        value(text, **names)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", None),
        ("true", True),
        ("0.5e1", 5.0),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775807 - 1", -(2**63)),
        (r'"a\n\"\u00e9\ud83d\ude00"', 'a\n"é😀'),
        (r"'it\'s'", "it's"),
        ("[1, 'a', [], {},]", [1, "a", [], {}]),
        ('{a: 1, "b c": 2, in: 3, a: 4,}', {"a": 4, "b c": 2, "in": 3}),
        ("input.name", "Ada"),
        ("input['name']", "Ada"),
        ("input.in.not", "keyword"),
        ("results['scan-all'].count", 2),
        ("input['na' + 'me']", "Ada"),
        ("input.list[0]", 1),
        ("input.list[-1]", 3),
        ("input.list[3]", None),
        ("input.list[-4]", None),
        ("input.absent", None),
        ("input.absent.deeper[3]['x']", None),
        ("1 + 2 * 3 - 4", 3),
        ("(1 + 2) * 3", 9),
        ("- -3", 3),
        ("-2 * -3", 6),
        ("6 / 2", 3),
        ("7 / 2", 3.5),
        ("-7 % 3", 2),
        ("7 % -3", -2),
        ("5.5 % 2", 1.5),
        ("1 / 3", 1 / 3),
        ("'a' + 'b'", "ab"),
        ("[1] + [2]", [1, 2]),
        ("1 == 1.0", True),
        ("1 == true", False),
        ("0 == false", False),
        ("'1' == 1", False),
        ("null == false", False),
        ("[1, {a: [true]}] == [1.0, {a: [true]}]", True),
        ("[1, {a: [true]}] == [1, {a: [1]}]", False),
        ("{a: 1, b: 2} == {b: 2, a: 1}", True),
        ("{a: 1} == {b: 1}", False),
        ("[1] == [1, 2]", False),
        ("'ab' != 'ac'", True),
        ("2 < 10", True),
        ("'2' < '10'", False),
        ("'Z' < 'a'", True),
        ("'\uffff' < '😀'", True),
        ("2 >= 2.0 and 2 <= 2", True),
        ("3 > 2", True),
        ("2 in input.list", True),
        ("true in [1]", False),
        ("'name' in input", True),
        ("'d' in 'Ada'", True),
        ("5 not in input.list", True),
        ("not false and true", True),
        ("not (true and false)", True),
        ("not 1 == 2", True),
        ("true or false and false", True),
        ("null or true", True),
        ("not null", True),
        ("false and input.name", False),
        ("true or input.name", True),
        ("input.flag ? 'yes' : 'no'", "yes"),
        ("null ? 1 : false ? 2 : true ? 3 : 4", 3),
        ("null ? 1 : false ? 2 : 3", 3),
        ("(true ? false : true) ? 1 : 2", 2),
        ("true ? 1 : 1 / 0", 1),
        ("{a: true ? 1 : 2}.a", 1),
        ("size('a😀')", 2),
        ("size(input.list) + size({a: 1})", 4),
        ("has(input.none)", True),
        ("has(input.absent)", False),
        ("has(input.absent.deeper)", False),
        ("has(input.list[2])", True),
        ("has(input.list[3])", False),
        ("contains(input.list, 3)", True),
        ("contains('Ada', 'x')", False),
        ("starts_with('Ada', 'A') and ends_with('Ada', 'da')", True),
        ("ends_with('Ada', 'Ada!')", False),
        ("lower('AÉz') + upper('aéZ')", "aÉzAéZ"),
        ("matches('a.csv', '*.csv')", True),
        ("matches('a.csv', '?.c?v')", True),
        ("matches('a.csv', 'a')", False),
        ("matches('abcabd', '*ab?')", True),
        ("matches('', '**')", True),
        ("matches('', '?')", False),
        ("matches('a*', 'a\\\\*')", False),
        ("min(3, 1, 2)", 1),
        ("max(input.list)", 3),
        ("min(['b', 'a'])", "a"),
        ("max([])", None),
        ("sum([1, 2.5])", 3.5),
        ("sum([])", 0),
        ("keys({b: 1, a: 2, B: 3})", ["B", "a", "b"]),
        ("values({b: 1, a: 2, B: 3})", [3, 2, 1]),
        ("range(3)", [0, 1, 2]),
        ("range(-1, 2)", [-1, 0, 1]),
        ("range(2, 1)", []),
        ("filter(input.rows, row => row.n > 1)", [{"n": 2, "tag": "b"}, {"n": 3}]),
        ("map(filter(input.rows, row => has(row.tag)), row => row.tag)", ["a", "b"]),
        ("any(input.rows, row => row.n == 2)", True),
        ("any([], x => x)", False),
        ("all(input.rows, row => row.tag != null)", False),
        ("all([], x => x)", True),
        ("any(input.rows, row => row.flag)", False),
        ("map([1, 2], input => map([10], x => x + input))[1][0] + input.n", 15),
        ("map([1], x => map([2], x => x)[0] + x)", [3]),
    ],
)
def test_an_expression_has_this_value(text: str, expected: Any) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "code", "position"),
    [
        ("foo", "EXPRESSION_UNKNOWN_NAME", 1),
        ("map([1], x => x)[0] + x", "EXPRESSION_UNKNOWN_NAME", 23),
        ("1 + 'a'", "EXPRESSION_TYPE", 3),
        ("1 - null", "EXPRESSION_TYPE", 3),
        ("'a' * 3", "EXPRESSION_TYPE", 5),
        ("[1] - [1]", "EXPRESSION_TYPE", 5),
        ("true + true", "EXPRESSION_TYPE", 6),
        ("-'a'", "EXPRESSION_TYPE", 1),
        ("-true", "EXPRESSION_TYPE", 1),
        ("1 < 'a'", "EXPRESSION_TYPE", 3),
        ("null < 1", "EXPRESSION_TYPE", 6),
        ("false < true", "EXPRESSION_TYPE", 7),
        ("[1] < [2]", "EXPRESSION_TYPE", 5),
        ("1 in 'a1'", "EXPRESSION_TYPE", 3),
        ("1 in {a: 1}", "EXPRESSION_TYPE", 3),
        ("1 in 2", "EXPRESSION_TYPE", 3),
        ("'a' and true", "EXPRESSION_TYPE", 1),
        ("true and 1", "EXPRESSION_TYPE", 10),
        ("0 or true", "EXPRESSION_TYPE", 1),
        ("not []", "EXPRESSION_TYPE", 5),
        ("1 ? 2 : 3", "EXPRESSION_TYPE", 1),
        ("'abc'[0]", "EXPRESSION_TYPE", 7),
        ("input.name.x", "EXPRESSION_TYPE", 12),
        ("input.list.x", "EXPRESSION_TYPE", 12),
        ("input.list[1.0]", "EXPRESSION_TYPE", 12),
        ("input.list[true]", "EXPRESSION_TYPE", 12),
        ("input[0]", "EXPRESSION_TYPE", 7),
        ("has(input.name.x)", "EXPRESSION_TYPE", 16),
        ("has(input.list.x)", "EXPRESSION_TYPE", 16),
        ("size(1)", "EXPRESSION_TYPE", 1),
        ("lower(1)", "EXPRESSION_TYPE", 1),
        ("upper(null)", "EXPRESSION_TYPE", 1),
        ("starts_with(1, 'a')", "EXPRESSION_TYPE", 1),
        ("starts_with('a', 1)", "EXPRESSION_TYPE", 1),
        ("ends_with(null, 'a')", "EXPRESSION_TYPE", 1),
        ("ends_with('a', null)", "EXPRESSION_TYPE", 1),
        ("matches(1, '*')", "EXPRESSION_TYPE", 1),
        ("min(1)", "EXPRESSION_TYPE", 1),
        ("min([null])", "EXPRESSION_TYPE", 1),
        ("max(1, 'a')", "EXPRESSION_TYPE", 1),
        ("sum(1)", "EXPRESSION_TYPE", 1),
        ("sum(['a'])", "EXPRESSION_TYPE", 1),
        ("keys([])", "EXPRESSION_TYPE", 1),
        ("values(1)", "EXPRESSION_TYPE", 1),
        ("range('3')", "EXPRESSION_TYPE", 1),
        ("range(1.0)", "EXPRESSION_TYPE", 1),
        ("filter({}, x => true)", "EXPRESSION_TYPE", 1),
        ("filter([1], x => x)", "EXPRESSION_TYPE", 18),
        ("any([1], x => 'a')", "EXPRESSION_TYPE", 15),
        ("1 / 0", "EXPRESSION_DIVISION", 3),
        ("1.5 % 0.0", "EXPRESSION_DIVISION", 5),
        ("18446744073709551615 + 1", "EXPRESSION_TOO_LARGE", 22),
        ("-18446744073709551615", "EXPRESSION_TOO_LARGE", 1),
        ("9223372036854775807 * 9223372036854775807", "EXPRESSION_TOO_LARGE", 21),
        ("1e308 * 10", "EXPRESSION_TOO_LARGE", 7),
        ("1e308 + 1e308", "EXPRESSION_TOO_LARGE", 7),
        ("1e308 / 1e-308", "EXPRESSION_TOO_LARGE", 7),
        ("sum([18446744073709551615, 1])", "EXPRESSION_TOO_LARGE", 1),
        ("range(1000000)", "EXPRESSION_TOO_LARGE", 1),
        ("range(-9223372036854775807, 9223372036854775807)", "EXPRESSION_TOO_LARGE", 1),
    ],
)
def test_what_has_no_value_is_refused_with_its_place(text: str, code: str, position: int) -> None:
    error = refusal(text)
    assert (error.code, error.data) == (code, {"position": position})
    assert str(error).startswith(f"at character {position}: ")


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        ("", 1, "is empty"),
        (" \n", 1, "is empty"),
        ("1 +", 4, "found the end"),
        ("1 2", 3, "expected an operator or the end, found '2'"),
        ("(1", 3, "expected ), found the end"),
        ("[1, 2", 6, "expected ,, found the end"),
        ("[,]", 2, "expected a value"),
        ("{1: 2}", 2, "expected a key"),
        ("{a 1}", 4, "expected :"),
        ("{a: 1 b: 2}", 7, "expected ,"),
        ("a.", 3, "field's name"),
        ("a.1", 3, "field's name"),
        ("a['b'", 6, "expected ]"),
        ("a && b", 3, "write and"),
        ("a || b", 3, "write or"),
        ("!a", 1, "write not"),
        ("a = b", 3, "write =="),
        ("a < b < c", 7, "a < b and b < c"),
        ("a not b", 7, "expected in"),
        ("a ? b", 6, "expected :"),
        ("a.contains('b')", 3, "write contains(value, ...)"),
        ("foo(1)", 1, "there is no function foo; there are all, any"),
        ("size()", 1, "size(text, list or object)"),
        ("size(1, 2)", 1, "size(text, list or object)"),
        ("has(input)", 5, "has(input.field)"),
        ("has(1 + 2)", 5, "has(input.field)"),
        ("filter(a, b)", 12, "expected =>"),
        ("filter(a, 1)", 11, "filter(list, x => expression)"),
        ("filter(a, in => 1)", 11, "expected a name"),
        ("x => 1", 3, "expected an operator"),
        ("size(1 2)", 8, "expected ,"),
        ("'abc", 1, "close it with '"),
        ("'a\nb'", 3, "control characters"),
        (r"'\x'", 2, "must be followed by"),
        (r"'\u12'", 2, "four hexadecimal digits"),
        (r"'\ud800'", 1, "half of a surrogate pair"),
        ("'\ud800'", 1, "half of a surrogate pair"),
        (r"'é\u0000'", 1, "NUL"),
        (r"'\u0000'", 1, "NUL"),
        ("01", 1, "must not begin with 0"),
        ("1a", 1, '["1a"]'),
        ("1.", 3, "field's name"),
        ("1_000", 1, "_"),
        ("18446744073709551616", 1, "64 bits"),
        ("1e999", 1, "too large"),
        ("é", 1, "has no meaning"),
        ("a # b", 3, "has no meaning"),
        ("٣", 1, "has no meaning"),
        ("x" * (EXPRESSION_LENGTH_MAX + 1), EXPRESSION_LENGTH_MAX + 1, "at most 2000 are allowed"),
        ("(" * 65 + "1" + ")" * 65, 65, "nested deeper"),
        ("[" * 65 + "]" * 65, 65, "nested deeper"),
        ("-" * 64 + "1", 65, "nested deeper"),
        ("a[" * 65 + "0" + "]" * 65, 129, "nested deeper"),
        ("(" * 20 + "a" + " * 1 + 1 == 1 and b or c)" * 20, None, "nested deeper"),
    ],
)
def test_what_is_no_expression_is_refused_with_place_and_remedy(text: str, position: int | None, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert caught.value.code == "EXPRESSION_SYNTAX"
    assert part in caught.value.message.split(": ", 1)[1]
    if position is not None:
        assert caught.value.data == {"position": position}


def test_messages_repeat_little_of_a_long_text() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("1 " + "x" * 1_900)
    assert len(caught.value.message) < 120


@pytest.mark.parametrize(
    "text",
    [
        "(" * 60 + "1" + ")" * 60,
        "1" + " + 1" * 490,
        "true" + " and true" * 220,
        "input" + ".a" * 950,
        "true ? 1 : " * 150 + "2",
        "[" + "1," * 900 + "]",
    ],
)
def test_long_expressions_need_not_be_deep(text: str) -> None:
    assert value(text) is not NotImplemented


def test_deep_values_are_compared_and_returned_without_recursion() -> None:
    one: Any = []
    other: Any = []
    for _ in range(20_000):
        one, other = [one], [other]
    assert value("a == b", a=one, b=other) is True
    assert value("a", a=one) is one
    assert value("a == b", a=[one], b=other) is False
    assert refusal("[a, a]", a={"deep": "x" * (9 * 1024 * 1024)}).code == "EXPRESSION_TOO_LARGE"


def test_conditions_take_null_for_false_and_nothing_else_for_true() -> None:
    assert holds(parse("input.flag"), NAMES) is True
    assert holds(parse("input.absent"), NAMES) is False
    assert holds(parse("false"), NAMES) is False
    with pytest.raises(ExpressionError, match="must be true, false or null, not a number"):
        holds(parse("input.n"), NAMES)


def test_an_evaluation_ends_after_its_steps() -> None:
    numbers = list(range(150))
    text = "map(l, x => size(map(l, y => size(filter(l, z => z == x + y)))))"
    assert refusal(text, l=numbers).code == "EXPRESSION_TOO_LONG"
    few = parse("any(range(1000), x => x == 999)")
    assert evaluate(few, {}, steps_max=10_000) is True
    with pytest.raises(ExpressionError, match="more than 1000 steps") as caught:
        evaluate(few, {}, steps_max=1_000)
    assert caught.value.code == "EXPRESSION_TOO_LONG"


@pytest.mark.parametrize(
    "text",
    [
        "any(range(1000), x => s == t)",
        "any(range(1000), x => t < s)",
        "any(range(1000), x => 'b' in s)",
        "any(range(1000), x => contains(s, 'b'))",
        "any(range(1000), x => lower(s) == null)",
        "any(range(1000), x => starts_with(s, t + 'b'))",
        "any(range(1000), x => matches(s, '*b'))",
        "any(range(1000), x => size(s + t) == 0)",
        "any(range(1000), x => l != m)",
        "any(range(1000), x => 'b' in l)",
        "any(range(1000), x => size(l + m) == 0)",
        "any(range(1000), x => max(l) == 'b')",
        "any(range(1000), x => size(keys(o)) == 0)",
        "any(range(1000), x => size(values(o)) == 0)",
        "any(range(1000), x => o != p)",
        "any(range(1000), x => sum(n) == 1)",
        "any(range(1000), x => size(range(1000)) == 0)",
    ],
)
def test_work_on_large_values_counts(text: str) -> None:
    texts = ["a" * 20 for _ in range(500)]
    objects = {f"k{n}": n for n in range(500)}
    names: dict[str, Any] = {"s": "a" * 20_000, "t": "a" * 19_999 + "b", "l": texts, "m": [*texts]}
    names |= {"o": objects, "p": dict(objects), "n": [0] * 500}
    assert refusal(text, **names).code == "EXPRESSION_TOO_LONG"


def test_what_an_expression_makes_is_bounded() -> None:
    text = "x" * 600_000
    assert refusal("s + s", s=text).code == "EXPRESSION_TOO_LARGE"
    assert refusal("l + l", l=[0] * 60_000).code == "EXPRESSION_TOO_LARGE"
    many = refusal("map(range(300), i => map(range(100), j => s))", s=text)
    assert many.code == "EXPRESSION_TOO_LARGE"
    assert refusal("[o, o, o]", o={"k" * 100: [text[n:] for n in range(20)]}).code == "EXPRESSION_TOO_LARGE"
    assert refusal("[l, l]", l=[0] * 1_500_000).code == "EXPRESSION_TOO_LARGE"
    assert len(value("input.big", input={"big": [0] * 1_000_000})) == 1_000_000


def test_only_json_counts() -> None:
    nan, infinity = float("nan"), float("inf")
    for bad in (nan, infinity, (1, 2), {1, 2}, b"x", 1j, object()):
        assert refusal("a < 1", a=bad).code == "EXPRESSION_TYPE"
        assert refusal("a + 1", a=bad).code == "EXPRESSION_TYPE"
        assert refusal("a.real", a=bad).code == "EXPRESSION_TYPE"
        assert refusal("size(a)", a=bad).code == "EXPRESSION_TYPE"
        assert value("a == b", a=bad, b=bad) is (False if isinstance(bad, float) else bad is bad and False)
    assert refusal("keys(a)", a={1: 2}).code == "EXPRESSION_TYPE"
    assert refusal("a + 1.5", a=10**400).code == "EXPRESSION_TOO_LARGE"
    assert value("a > 1.5", a=10**400) is True


@pytest.mark.parametrize("name", ["__class__", "__len__", "real", "keys", "append", "__globals__"])
def test_attributes_of_python_objects_are_out_of_reach(name: str) -> None:
    assert value(f"input.{name}") is None
    assert refusal(f"input.list.{name}").code == "EXPRESSION_TYPE"
    assert refusal(f"input.n['{name}']").code == "EXPRESSION_TYPE"
    assert refusal(name).code == "EXPRESSION_UNKNOWN_NAME"


def test_evaluation_changes_nothing() -> None:
    names = {"input": [3, 1, 2]}
    assert evaluate(parse("map(input, input => input + 1) + keys({a: 1})"), names) == [4, 2, 3, "a"]
    assert names == {"input": [3, 1, 2]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2", set()),
        ("input", {("input", None)}),
        ("input.a.b + results['x-y'].c[event.n]", {("input", "a"), ("results", "x-y"), ("event", "n")}),
        ("results[input.which]", {("results", None), ("input", "which")}),
        ("input[0]", {("input", None)}),
        ("filter(results.a, x => x.b > y.c)", {("results", "a"), ("y", "c")}),
        ("map(x, x => x.y)", {("x", None)}),
        ("any([1], x => all([2], y => x == y)) and x.z", {("x", "z")}),
        ("has(input.a) ? {k: b.c} : [d, -e, not f, 'g']", {("input", "a"), ("b", "c"), *((n, None) for n in "def")}),
        ("(a.b).c", {("a", "b")}),
    ],
)
def test_the_names_that_an_expression_uses(text: str, expected: set[tuple[str, str | None]]) -> None:
    assert names_of(parse(text)) == expected


def test_expressions_are_equal_when_their_texts_are() -> None:
    assert parse("1") == parse("1")
    assert parse("1") != parse("true")
    assert len({parse("1"), parse("1"), parse("1.0"), parse("true")}) == 3
    assert str(parse(" a ")) == " a "
    assert isinstance(parse("a"), Expression)


def test_errors_are_the_engines_and_leave_no_cause_for_a_500() -> None:
    assert issubclass(ExpressionError, EngineError)
    assert not refusal("1 / 0").transient


def test_the_page_names_version_functions_and_codes() -> None:
    assert f"version {LANGUAGE_VERSION} of the language" in PAGE
    documented = set(re.findall(r"`(\w+)\(", PAGE))
    assert documented == set(SIGNATURES)
    assert set(FUNCTIONS) == {
        name for name, signature in SIGNATURES.items() if not signature.takes_lambda and not signature.takes_path
    }
    codes = {error.code for error in ExpressionError.__subclasses__()}
    assert codes == set(re.findall(r"^\| `(EXPRESSION_\w+)`", PAGE, re.MULTILINE))


def test_the_pages_examples_can_be_read() -> None:
    examples = PAGE.split("```")[1].strip().splitlines()
    assert len(examples) == 4
    for example in examples:
        assert names_of(parse(example))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 60 + "true" + " and true)" * 60,
        "not " * 60 + "true",
        "[" * 60 + "1" + "]" * 60,
        "any([1], x => " * 30 + "true" + ")" * 30,
        "(true ? " * 30 + "1" + " : 2)" * 30,
        "a[" * 60 + "'b'" + "]" * 60,
    ],
)
def test_the_deepest_expression_needs_a_third_of_pythons_stack(text: str) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + limit // 3)
    try:
        assert value(text, a={"b": "b"}) is not NotImplemented
    finally:
        sys.setrecursionlimit(limit)
