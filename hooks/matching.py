"""Which hooks an event sets off: RE2 patterns, compiled together, so that a thousand cost hardly more than one.

RE2 matches in time linear in the subject, whatever the pattern; what it cannot do that way it refuses. Patterns of one
trigger and mode are compiled into one automaton, which is split where it would take too much memory.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import re2

from engine.contracts.hooks import EVENT_PATTERN_LENGTH_MAX, HookMode, HookRule, HookTrigger
from engine.errors import InvalidParametersError

PATTERN_MEMORY_BYTES: Final = 256 * 1024
"""Of one pattern: a repetition of repetitions that needs more is refused when it is registered."""
SET_MEMORY_BYTES: Final = 8 * 1024 * 1024
PATTERNS_TOGETHER_MAX: Final = 1_000
SUBJECTS_REMEMBERED_MAX: Final = 2_000


def check_pattern(pattern: str) -> None:
    """Raises InvalidParametersError with what RE2 says, located."""
    if len(pattern) > EVENT_PATTERN_LENGTH_MAX:
        raise _refused(f"is longer than {EVENT_PATTERN_LENGTH_MAX} characters")
    if any(ord(c) < 32 or ord(c) == 127 for c in pattern):
        raise _refused("must not contain control characters")
    try:
        re2.compile(pattern, _options(PATTERN_MEMORY_BYTES))
    except re2.error as error:
        said = error.args[0] if error.args else "not understood"
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise _refused(f"RE2 refuses it: {text}; look-around and back-references do not exist there") from error
    except UnicodeEncodeError as error:
        raise _refused("is not valid text") from error


def _refused(why: str) -> InvalidParametersError:
    return InvalidParametersError(
        f"event_pattern {why}", errors=[{"code": "EVENT_PATTERN", "location": "event_pattern", "message": why}]
    )


def _options(memory_bytes: int) -> Any:
    options = re2.Options()
    options.max_mem = memory_bytes
    options.log_errors = False
    return options


class HookIndex:
    """A tenant's enabled hooks, in the order in which they run."""

    def __init__(self, rules: Iterable[HookRule] = ()) -> None:
        groups: dict[tuple[HookTrigger, HookMode], list[HookRule]] = {}
        for rule in rules:
            groups.setdefault((rule.trigger, rule.mode), []).append(rule)
        self._groups = {key: _Group(members) for key, members in groups.items()}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def has(self, trigger: HookTrigger, mode: HookMode) -> bool:
        return (trigger, mode) in self._groups

    def has_mode(self, mode: HookMode) -> bool:
        return any(key[1] is mode for key in self._groups)

    def matching(self, trigger: HookTrigger, mode: HookMode, subject: str) -> tuple[HookRule, ...]:
        group = self._groups.get((trigger, mode))
        return () if group is None else group.matching(subject)


class _Group:
    """Hooks of one trigger and mode."""

    def __init__(self, rules: Sequence[HookRule]) -> None:
        self._rules = rules
        self._always = [place for place, rule in enumerate(rules) if rule.event_pattern is None]
        places: dict[str, list[int]] = {}
        for place, rule in enumerate(rules):
            if rule.event_pattern is not None:
                places.setdefault(rule.event_pattern, []).append(place)
        self._places = list(places.values())
        self._sets = _compile(list(places))
        self._remembered: dict[str, tuple[HookRule, ...]] = {}

    def matching(self, subject: str) -> tuple[HookRule, ...]:
        found = self._remembered.get(subject)
        if found is None:
            found = self._match(subject)
            if len(self._remembered) >= SUBJECTS_REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[subject] = found
        return found

    def _match(self, subject: str) -> tuple[HookRule, ...]:
        places = list(self._always)
        for first, compiled in self._sets:
            for hit in compiled.Match(subject) or ():
                places += self._places[first + hit]
        return tuple(self._rules[place] for place in sorted(places))


def _compile(patterns: list[str], first: int = 0) -> list[tuple[int, Any]]:
    """(index of its first pattern, automaton) pairs. A single pattern was checked, so splitting ends."""
    if not patterns:
        return []
    if len(patterns) <= PATTERNS_TOGETHER_MAX:
        compiled = re2.Set.SearchSet(_options(SET_MEMORY_BYTES))
        for pattern in patterns:
            compiled.Add(pattern)
        try:
            compiled.Compile()
        except re2.error:
            if len(patterns) == 1:
                raise
        else:
            return [(first, compiled)]
    middle = len(patterns) // 2
    return _compile(patterns[:middle], first) + _compile(patterns[middle:], first + middle)
