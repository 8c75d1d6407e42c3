"""Placeholders such as `{task_id}` and `{result.path}`: names of the event's fields, filled in when a hook runs.

Only what looks exactly like a placeholder is one; other braces, as in JSON, stand for themselves. A value fills the
place it was given and nothing else: arguments are told apart before values are known.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from hooks.actions.context import HookContext
from hooks.actions.refusal import refused
from hooks.actions.words import check_text

PLACEHOLDER: Final = re.compile(r"\{(?:(secret):([a-z0-9][a-z0-9_-]{0,62})|([a-z_]+)((?:\.[A-Za-z0-9_-]+)*))\}")
NESTED: Final = frozenset({"input", "result", "values"})
"""Fields that have parts."""

SCALARS: Final = frozenset(HookContext.model_fields) - NESTED - {"work_dir", "run_key"}
NAMES: Final = tuple(sorted(SCALARS | NESTED))
VALUE_LENGTH_MAX: Final = 8 * 1024

Text = Callable[[str], str]
Secrets = Mapping[str, str]


def check_placeholders(template: str, field: str, *, secrets_allowed: bool = False) -> None:
    """Raises when a name is not one of the event's fields, or a secret stands where others could read it."""
    for match in PLACEHOLDER.finditer(template):
        if match[1]:
            if not secrets_allowed:
                raise refused(
                    "SECRET_MISPLACED",
                    field,
                    f"a secret may not be part of an argument ({match[0]})",
                    "name it in `secrets`, or put it into a header or the body of a curl call",
                )
        elif match[3] not in NAMES or (match[4] and match[3] not in NESTED):
            raise refused("PLACEHOLDER_UNKNOWN", field, f"{match[0]} is not known", f"known are {', '.join(NAMES)}")


def has_placeholder(template: str) -> bool:
    return PLACEHOLDER.search(template) is not None


def secret_ids(template: str) -> set[str]:
    return {match[2] for match in PLACEHOLDER.finditer(template) if match[1]}


def fill(
    template: str,
    context: HookContext,
    field: str,
    *,
    secrets: Secrets | None = None,
    encode: Text = str,
) -> str:
    """The template with its values. What is filled in has no control characters; `encode` fits it to its place."""

    def value_of(match: re.Match[str]) -> str:
        if match[1]:
            value = (secrets or {}).get(match[2])
            if value is None:
                raise refused("VALUE_MISSING", field, f"{match[0]} has no value", "see that the secret exists")
            return encode(check_text(value, f"{field} {match[0]}"))
        text = _text(_lookup(context, match[3], [part for part in match[4].split(".") if part]), match[0], field)
        if len(text) > VALUE_LENGTH_MAX:
            raise refused("ARGUMENT_TOO_LONG", field, f"{match[0]} has {len(text)} characters", "use a shorter value")
        return encode(check_text(text, f"{field} {match[0]}"))

    return PLACEHOLDER.sub(value_of, template)


def _lookup(context: HookContext, name: str, parts: list[str]) -> Any:
    value: Any = getattr(context, name)
    if name == "file" and value is None and isinstance(context.result, Mapping):
        value = context.result.get("file")
    for part in parts:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and len(part) <= 6 and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _text(value: Any, placeholder: str, field: str) -> str:
    if value is None:
        raise refused("VALUE_MISSING", field, f"{placeholder} has no value in this event", "use a field that is there")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    try:
        return str(value)
    except ValueError as error:  # an integer with more digits than Python writes
        raise refused("ARGUMENT_TOO_LONG", field, f"{placeholder} is too long", "use a shorter value") from error
