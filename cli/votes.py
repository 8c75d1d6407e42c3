"""`recount`: a swarm's votes under another rule, without asking the agents again."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.options import ExecutionArgument, JsonOption
from cli.output import print_document, printable
from cli.sharing import Connect, engine, shares
from cli.tables import plain
from engine.errors import InvalidParametersError

app = typer.Typer()

RuleOption = Annotated[str, typer.Option(help="majority, supermajority, unanimous, weighted, ranked_choice or quorum.")]


@app.command()
@shares(connect=engine)
def recount(
    execution_id: ExecutionArgument,
    rule: RuleOption,
    task: Annotated[str | None, typer.Option(help="Only this question.")] = None,
    round_number: Annotated[int | None, typer.Option("--round", help="This round instead of the last.")] = None,
    threshold: Annotated[str | None, typer.Option(help="Share that decides, as 0.75 or 3/4.")] = None,
    of: Annotated[str | None, typer.Option(help="Share of the `members` or of the `votes`.")] = None,
    quorum: Annotated[str | None, typer.Option(help="Share of the members that must have voted.")] = None,
    tie_break: Annotated[str | None, typer.Option(help="earliest, lowest, seeded or none.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Numbers this close count as one.")] = None,
    weight: Annotated[list[str] | None, typer.Option(help="AGENT=WEIGHT, for the rule weighted; repeatable.")] = None,
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Count the votes of an execution again under another rule. The execution stays as it is."""
    voting = {
        "rule": rule,
        "threshold": _share(threshold),
        "of": of,
        "quorum": _share(quorum),
        "tie_break": tie_break,
        "tolerance": tolerance,
        "weights": _weights(weight or []) or None,
    }
    params = {
        "execution_id": execution_id,
        "voting": {name: value for name, value in voting.items() if value is not None},
        "task_id": task,
        "round": round_number,
    }
    with connect() as client:
        counts = client.call("swarm.recount", {name: value for name, value in params.items() if value is not None})
    if as_json:
        print_document(counts)
        return
    for item in counts["items"]:
        _show(item)


def _show(item: dict[str, Any]) -> None:
    recorded, recounted = item["recorded"], item["recounted"]
    print(printable(f"{item['task_id']}, round {item['round']}: {recounted['voted']} of {recounted['members']} voted"))
    table = Table(box=None, pad_edge=False)
    for column in ("", "rule", "verdict", "decision"):
        table.add_column(column, overflow="fold")
    for name, outcome in (("recorded", recorded), ("recounted", recounted)):
        rule = outcome["rule"].get("rule", "majority")
        table.add_row(name, plain(rule), plain(outcome["verdict"]), plain(outcome["decision"]))
    Console().print(table)
    if item["dissent"]:
        names = ", ".join(item["dissent"][:10])
        more = f" and {len(item['dissent']) - 10} more" if len(item["dissent"]) > 10 else ""
        print(printable(f"dissent: {names}{more}"))


def _share(text: str | None) -> float | str | None:
    if text is None or "/" in text:
        return text
    return _number(text)


def _weights(texts: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        agent, sign, number = text.partition("=")
        if not sign:
            raise InvalidParametersError(f"{text!r} is no weight: write it as worker-1=2.5")
        found[agent] = _number(number)
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidParametersError(f"{text!r} is not a number") from error
