"""curl: one request over HTTP. Its arguments are read into a request, and curl is told that request in our words.

No files are read or written, no proxies, no other protocols, nothing that leads a name to another address.
"""

from typing import Final

from hooks.actions.tables.grammar import CommandTable, Grammar, Kind, matching, one_of

METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
BODY_LENGTH_MAX: Final = 64 * 1024

METHOD: Final = one_of(*METHODS)
HEADER: Final = matching("header", r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}:[^\x00-\x1f\x7f]{0,4096}", "`Name: value`")
SECONDS: Final = matching("seconds", r"[0-9]{1,4}(\.[0-9]{1,3})?", "a number of seconds")
AGENT: Final = matching("text", r"[\x20-\x7e]{1,200}", "a text of printable characters")


def _check_body(value: str) -> str | None:
    if value.startswith(("@", "<")):
        return "would be read from a file"
    return None if len(value) <= BODY_LENGTH_MAX else "is too long"


BODY: Final = Kind("body", _check_body)
ADDRESS: Final = matching("URL", r"[\x21-\x7e]{1,4096}", "a URL of printable characters")

FLAGS: Final[dict[str, Kind | None]] = {
    "--connect-timeout": SECONDS,
    "--data": BODY,
    "--data-raw": BODY,
    "-d": BODY,
    "--fail": None,
    "--fail-with-body": None,
    "-f": None,
    "--head": None,
    "-I": None,
    "--header": HEADER,
    "-H": HEADER,
    "--include": None,
    "-i": None,
    "--json": BODY,
    "--location": None,
    "-L": None,
    "-fsS": None,
    "-fsSL": None,
    "--max-time": SECONDS,
    "-m": SECONDS,
    "--request": METHOD,
    "-X": METHOD,
    "--show-error": None,
    "-S": None,
    "--silent": None,
    "-s": None,
    "-sS": None,
    "--user-agent": AGENT,
    "-A": AGENT,
}

TABLE: Final = CommandTable(
    program="curl",
    subcommands={"": Grammar(flags=FLAGS, positional=ADDRESS, positional_max=1)},
)
