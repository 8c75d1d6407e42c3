"""`replay`: would the present code have decided as the history says?"""

import asyncio
from dataclasses import asdict

import typer

from cli.configuration import load_settings
from cli.connection import read_engine_file
from cli.options import DATA_DIR_DEFAULT, DataDirOption, ExecutionArgument, JsonOption, TenantOption
from cli.outcome import ExitCode
from cli.output import print_document, printable
from engine.plans import PlanLoader
from engine.postgres.on_demand import StoresOnDemand
from engine.settings import Settings
from engine.temporal.connection import connect
from workflows.replay import Replayed, replay_execution

app = typer.Typer()

REPLAY_TIMEOUT_SECONDS = 600.0


@app.command()
def replay(
    execution_id: ExecutionArgument,
    tenant: TenantOption = "default",
    data_dir: DataDirOption = DATA_DIR_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Replay an execution's history against the present code. Exit code 1 when the code does not follow it.

    The history is read from Temporal itself: that of the engine on --data-dir, or the one that TEMPORAL_ADDRESS and
    TEMPORAL_NAMESPACE name when no engine runs there. What is too large for it is read from PostgreSQL (DATABASE_URL).
    """
    engine = read_engine_file(data_dir) or {}
    settings = load_settings(
        temporal_address=engine.get("temporal_address"),
        temporal_namespace=engine.get("temporal_namespace"),
        database_url=engine.get("database_url"),
    )
    runs = asyncio.run(replay_runs(settings, tenant, execution_id))
    ok = all(run.ok for run in runs)
    if as_json:
        print_document({"execution_id": execution_id, "ok": ok, "runs": [asdict(run) for run in runs]})
    else:
        for run in runs:
            verdict = "follows the history" if run.ok else f"does not follow the history: {run.failure}"
            print(printable(f"run {run.run_id}, {run.events} events: {verdict}"))
    if not ok:
        raise typer.Exit(ExitCode.FAILED)


async def replay_runs(settings: Settings, tenant: str, execution_id: str) -> list[Replayed]:
    async with asyncio.timeout(REPLAY_TIMEOUT_SECONDS), StoresOnDemand(settings) as stores:
        client = await connect(settings, PlanLoader(stores), stores)
        return await replay_execution(client, tenant, execution_id)
