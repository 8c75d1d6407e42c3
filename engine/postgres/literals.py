"""Arrays as PostgreSQL's own text form.

The driver encodes an array element by element, and a tick of a large execution has tens of thousands. Joining text and
letting the server read it costs this process less. Statements cast such a parameter:
`$1::text::bigint[]`.
"""

from collections.abc import Sequence


def numbers(values: Sequence[int | None]) -> str:
    """Integers, or NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def plain(values: Sequence[str]) -> str:
    """Texts of letters, digits, dots and underscores only, such as names of states and types; not "null"."""
    return "{" + ",".join(values) + "}"


def texts(values: Sequence[str | None]) -> str:
    """Any texts, or NULL."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def documents(values: Sequence[bytes | None]) -> str:
    """JSON documents, or NULL."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value.decode()) for value in values]) + "}"


def _quoted(value: str) -> str:
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    return '"' + value.replace('"', '\\"') + '"'
