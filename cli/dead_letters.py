"""`dlq`: what agents wrote and the engine could not deliver: look at it, send it again, throw it away."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.options import JsonOption, LimitOption, PageTokenOption
from cli.output import print_document, print_message, print_more, printable
from cli.sharing import Connect, engine, shares
from cli.tables import local_time, plain
from engine.errors import InvalidParametersError

app = typer.Typer(no_args_is_help=True)

ROUNDS_MAX = 1_000

LettersArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Letters, by id.")]
AllOption = Annotated[bool, typer.Option("--all", help="All letters instead of some.")]


@app.command("list")
@shares(connect=engine)
def list_letters(
    *,
    connect: Connect,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, the newest first."""
    with connect() as client:
        page = client.get("/api/v1/dead-letters", limit=limit, page_token=page_token)
    if as_json:
        print_document(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("letter", "execution", "events", "tries", "reason"):
        table.add_column(column, no_wrap=column in ("letter", "execution"), overflow="fold")
    for letter in page["items"]:
        row = (letter["letter_id"], letter["execution_id"], ", ".join(letter["event_types"]), letter["tries"])
        table.add_row(*map(plain, row), plain(letter["reason"]))
    Console().print(table)
    print_message(f"{page['total']} in all")
    print_more(page)


@app.command()
@shares(connect=engine)
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The letter's id.")],
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Show a dead letter with the entry as it was written."""
    with connect() as client:
        letter = client.call("dead_letter.get", {"letter_id": letter_id})
    if as_json:
        print_document(letter)
        return
    print(printable(f"{letter['letter_id']}, {local_time(letter['buried_at'])}, partition {letter['partition']}"))
    print(printable(f"reason: {letter['reason']} (after {letter['tries']} tries)"))
    for name, value in letter["fields"].items():
        print(printable(f"{name}: {value}"))
    if not letter["replayable"]:
        print_message("it cannot be replayed: it names no execution, or was too large to be kept whole")


@app.command()
@shares(connect=engine)
def replay(
    letters: LettersArgument = None,
    everything: AllOption = False,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Send dead letters again, to where their execution reads."""
    replayed: list[str] = []
    refused: dict[str, str] = {}
    with connect() as client:
        for _ in range(ROUNDS_MAX):
            answer = client.call("dead_letter.replay", _chosen(letters, everything))
            replayed += answer["replayed"]
            refused |= answer["refused"]
            if not answer["more"]:
                break
    if as_json:
        print_document({"replayed": replayed, "refused": refused})
        return
    print(f"{len(replayed)} sent again")
    for letter_id, reason in refused.items():
        print_message(f"{letter_id}: {reason}")


@app.command()
@shares(connect=engine)
def purge(
    letters: LettersArgument = None,
    everything: AllOption = False,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Throw dead letters away."""
    with connect() as client:
        answer = client.call("dead_letter.purge", _chosen(letters, everything))
    if as_json:
        print_document(answer)
    else:
        print(f"{answer['purged']} thrown away")


def _chosen(letters: list[str] | None, everything: bool) -> dict[str, Any]:
    if everything == bool(letters):
        raise InvalidParametersError("name the letters by id, or give --all")
    return {"all": True} if everything else {"letter_ids": letters}
