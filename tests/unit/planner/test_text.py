"""JSON and YAML texts: what is read, and what is refused before it can do harm."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.contracts.limits import REQUEST_BYTES_MAX
from engine.errors import InvalidDefinitionError
from planner.parse import parse_text
from planner.text import ALIASES_MAX, DEPTH_MAX


def refusal(text: str) -> tuple[str, str, str]:
    with pytest.raises(InvalidDefinitionError) as caught:
        parse_text(text)
    [problem] = caught.value.data["errors"]
    return problem["code"], problem["location"], problem["message"]


YAML = """
# A comment
name: review        # another
version: "1.0"
pattern_config: {a: [1, 2.5, -3e2, 0x1F, 0o17, .5], b: null, c: ~, d: }
tasks:
  - id: no
    on: yes
    date: 2024-01-01
    time: 12:30
    flag: true
    text: |
      two
      lines
    quoted: '1'
    tagged: !!str 7
"""


def test_yaml_is_read_as_its_core_schema_says() -> None:
    assert parse_text(YAML) == {
        "name": "review",
        "version": "1.0",
        "pattern_config": {"a": [1, 2.5, -300.0, 31, 15, 0.5], "b": None, "c": None, "d": None},
        "tasks": [
            {
                "id": "no",
                "on": "yes",
                "date": "2024-01-01",
                "time": "12:30",
                "flag": True,
                "text": "two\nlines\n",
                "quoted": "1",
                "tagged": "7",
            }
        ],
    }


def test_a_mark_at_the_beginning_is_skipped() -> None:
    assert parse_text('\ufeff{"a": 1}') == {"a": 1}


def test_a_mapping_in_flow_style_is_yaml_although_it_begins_like_json() -> None:
    assert parse_text("{a: 1, b: [x]}") == {"a": 1, "b": ["x"]}


def test_aliases_stand_for_their_values() -> None:
    text = "retry: &r {max_attempts: 2}\ntasks: [{p: *r}, {p: *r}]\nkey: &k name\n*k : 1\n"
    assert parse_text(text) == {
        "retry": {"max_attempts": 2},
        "tasks": [{"p": {"max_attempts": 2}}, {"p": {"max_attempts": 2}}],
        "key": "name",
        "name": 1,
    }


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED = [
    ("TOO_LARGE", "", "2097152", '"' + "x" * REQUEST_BYTES_MAX + '"'),
    ("TOO_LARGE", "line 6", "aliases are expanded", LAUGHS),
    ("TOO_MANY_ALIASES", "line 2", "1000", "a: &a 1\nb: [" + "*a," * (ALIASES_MAX + 1) + "]"),
    ("TOO_DEEP", "line 1", "deeper than 100", "[" * (DEPTH_MAX + 1)),
    ("TOO_DEEP", "", "nested too deeply", '{"a":' * 100_000),
    ("TOO_DEEP", "line 2", "deeper than", "a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60),
    ("DUPLICATE_KEY", "", '"a"', '{"a": 1, "b": {"a": 1, "a": 2}}'),
    ("DUPLICATE_KEY", "line 3, column 1", '"a"', "a: 1\nb: 2\na: 3\n"),
    ("NOT_FINITE", "", "Infinity", '{"a": Infinity}'),
    ("NOT_FINITE", "", "NaN", '{"a": NaN}'),
    ("NOT_FINITE", "", "1e999", '{"a": 1e999}'),
    ("NOT_FINITE", "line 1, column 4", ".nan", "a: .nan"),
    ("NOT_FINITE", "line 1, column 4", "-.inf", "a: -.inf"),
    ("NOT_FINITE", "line 1, column 4", "too large", "a: 1e999"),
    ("MALFORMED", "line 1, column 9", "is not JSON", '{"a": 1,,}'),
    ("MALFORMED", "", "number cannot be read", '{"a": ' + "9" * 5_000 + "}"),
    ("MALFORMED", "line 2, column 5", "is not YAML", "a: 1\nb: c: 2\n"),
    ("MALFORMED", "line 2, column 1", "more than one YAML document", "a: 1\n---\nb: 2\n"),
    ("MALFORMED", "line 1, column 4", "tag", "a: !!python/object:os.system x"),
    ("MALFORMED", "line 1, column 4", "tag", "a: !!python/tuple [1]"),
    ("MALFORMED", "line 1, column 4", "tag", "a: !!set {x}"),
    ("MALFORMED", "line 1, column 1", "quote it", "1: x"),
    ("MALFORMED", "line 1, column 3", "a key must be a string", "? [a]\n: 1"),
    ("MALFORMED", "line 1, column 8", "names no finished value", "a: &a [*a]"),
    ("MALFORMED", "line 1, column 4", "names no finished value", "a: *b"),
    ("MALFORMED", "", "is not YAML", "a: \x01"),
    ("INVALID_TYPE", "", "not a list", "[1]"),
    ("INVALID_TYPE", "", "not null", ""),
    ("INVALID_TYPE", "", "not a string", "hello"),
]


@pytest.mark.parametrize(
    ("code", "place", "words", "text"), REFUSED, ids=[f"{r[0]}-{n}" for n, r in enumerate(REFUSED)]
)
def test_a_text_is_refused_with_its_place(code: str, place: str, words: str, text: str) -> None:
    found, location, message = refusal(text)
    assert (found, words in message) == (code, True), message
    assert location.startswith(place) if place else location == ""


def test_the_limit_of_a_text_is_the_callers_to_choose() -> None:
    assert parse_text('{"a": 1}', bytes_max=8) == {"a": 1}
    with pytest.raises(InvalidDefinitionError):
        parse_text('{"a": 1}', bytes_max=7)


json_objects = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(json_objects)
def test_json_is_read_as_it_was_written(data: dict[str, Any]) -> None:
    assert parse_text(json.dumps(data)) == data


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60) | st.text("{}[]:,-*&!?|>'\"# \nab1", max_size=40))
def test_any_text_is_read_or_refused_with_one_problem(text: str) -> None:
    problems: list[dict[str, str]] = []
    data: Any = None
    try:
        data = parse_text(text)
    except InvalidDefinitionError as error:
        problems = error.data["errors"]
    assert isinstance(data, dict) != (len(problems) == 1)
