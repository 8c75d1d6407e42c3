"""Patterns that hold other engines for ever: each is refused, or answers at once."""

import time

import pytest

from engine.contracts.hooks import HookMode, HookTrigger
from engine.errors import InvalidParametersError
from hooks.matching import HookIndex, check_pattern
from tests.unit.hooks.test_matching import rule

SECONDS_MAX = 1.0
"""Backtracking would take longer than the universe is old for most of them."""

EVIL = [
    (r"(a+)+$", "a" * 5000 + "!"),
    (r"(a|aa)+$", "a" * 5000 + "!"),
    (r"(a|a?)+$", "a" * 5000 + "!"),
    (r"(.*a){12}", "a" * 11 + "b" * 5000),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 5000),
    (r"([a-zA-Z]+)*$", "a" * 5000 + "1"),
    (r"(x+x+)+y", "x" * 5000),
    (r"(\w+\s?)*$", "word " * 1000 + "!"),
    (r"^(a?){25}a{25}$", "a" * 24),
    (r"(.*)*(.*)*(.*)*=", "x" * 5000),
    (r"(?:(?:a*)*)*b", "a" * 5000),
    (r"\s+$", " " * 5000 + "x"),
    (r".*.*.*.*.*=.*", "x" * 5000),
    (r"(a{1,30}){1,30}$", "a" * 2000 + "!"),
]

REFUSED = [
    r"(a+)\1",
    r"(?=a)b",
    r"(?<!a)b",
    r"(?<=a+)b",
    r"(?>a+)b",
    r"a{1000}{1000}",
    r"((a{100}){100}){100}",
    r"(?P<x>a)(?P=x)",
    r"(",
    r"[",
    r"*",
    r"a**",
    r"\8",
    "(" * 400 + "a" + ")" * 400,
    "a\x00b",
    "a\nb",
    "\ud800",
    "a" * 100_000,
]


@pytest.mark.parametrize(("pattern", "subject"), EVIL)
def test_an_evil_pattern_is_refused_or_answers_at_once(pattern: str, subject: str) -> None:
    began = time.process_time()
    try:
        check_pattern(pattern)
    except InvalidParametersError:
        assert time.process_time() - began < SECONDS_MAX
        return
    index = HookIndex([rule(pattern)])
    index.matching(HookTrigger.POST_TASK, HookMode.ASYNCHRONOUS, subject)
    assert time.process_time() - began < SECONDS_MAX


@pytest.mark.parametrize("pattern", REFUSED, ids=range(len(REFUSED)))
def test_a_pattern_that_cannot_be_matched_in_linear_time_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParametersError):
        check_pattern(pattern)
