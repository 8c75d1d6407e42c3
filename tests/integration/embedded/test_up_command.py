"""What `orchestrator up` takes, shows and refuses; run inside the test's process where that is enough."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import up
from cli.up import UpOptions, engine_roles, run_up
from engine.embedded.addresses import HeldPort, hold_free_port
from engine.embedded.engine import ServerPorts
from engine.embedded.roles import RoleSpec
from engine.errors import ConfigurationError, UnavailableError
from engine.security.keys import FixedKeys
from engine.security.tokens import TokenVerifier
from tests.integration.embedded.processes import alive, descendants, poll
from tests.integration.embedded.supervise import FAKE_GATEWAY
from tests.integration.embedded.test_engine import poll as poll_here

CATALOGUE = Path("catalogue.yaml")
GATEWAY = RoleSpec("gateway", ("-I", FAKE_GATEWAY))


@pytest.fixture
def own_children_only() -> Iterator[None]:
    """Whatever a test starts has ended with it."""
    before = descendants(os.getpid())
    yield
    new = descendants(os.getpid()) - before
    # The servers that tests share start processes too, for instance one for each connection.
    assert not alive({process for process in new if not any(process in descendants(pid) for pid, _ in before)})


@pytest.mark.usefixtures("own_children_only")
async def test_it_shows_progress_and_links_and_issues_a_token_of_the_bootstrap_tenant(
    open_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = open_directory / "data"
    running = asyncio.create_task(run_up(UpOptions(data_dir, port=0), [GATEWAY]))
    await poll_here((data_dir / "engine.json").exists)
    announced = json.loads((data_dir / "engine.json").read_bytes())
    principal = await TokenVerifier(
        FixedKeys.from_file(data_dir / "token-key.pem"), "orchestrator", "orchestrator"
    ).verify(announced["token"])
    assert (principal.tenant, principal.roles) == ("default", ("admin",))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    output, messages = capsys.readouterr()
    for link in (announced["url"], announced["temporal_ui"], announced["token"], f"{announced['url']}/docs"):
        assert link in output
    for step in ("PostgreSQL", "database", "Valkey", "Temporal", "engine"):
        assert f"{step} " in messages
    assert announced["token"] not in messages


@pytest.mark.usefixtures("own_children_only")
async def test_a_port_in_use_is_refused_before_anything_starts(open_directory: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} is in use"):
            await run_up(UpOptions(open_directory / "data", port=port), [GATEWAY])
    assert not (open_directory / "data").exists()


@pytest.mark.usefixtures("own_children_only")
async def test_a_chosen_gateway_port_that_somebody_listens_on_is_given_up_for_another(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    with socket.socket() as intruder:

        def choose() -> HeldPort:
            held = hold_free_port()
            chosen.append(held.port)
            if len(chosen) == 1:
                intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                intruder.bind(("127.0.0.1", held.port))
                intruder.listen()
            return held

        monkeypatch.setattr(up, "hold_free_port", choose)
        running = asyncio.create_task(run_up(UpOptions(open_directory / "data", port=0), [GATEWAY]))
        engine_file = open_directory / "data" / "engine.json"
        await poll_here(lambda: running.done() or engine_file.exists())
        if running.done():
            await running
        announced = json.loads(engine_file.read_bytes())
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
    assert announced["url"] == f"http://127.0.0.1:{chosen[1]}"


@pytest.mark.usefixtures("own_children_only")
async def test_a_role_that_cannot_start_is_an_error_and_everything_stops(open_directory: Path) -> None:
    broken = RoleSpec("worker", ("-I", "-S", "-c", "raise SystemExit('no such setting')"))
    never_ready = RoleSpec("gateway", ("-I", "-S", "-c", "import signal; signal.pause()"))
    with pytest.raises(UnavailableError, match=r"(?s)worker ended .* times while starting.*no such setting"):
        await run_up(UpOptions(open_directory / "data", port=0), [never_ready, broken])
    assert not (open_directory / "data" / "engine.json").exists()


@pytest.mark.usefixtures("own_children_only")
async def test_roles_get_the_address_the_catalogue_and_the_servers(open_directory: Path) -> None:
    names = ("ORCHESTRATOR_HOST", "ORCHESTRATOR_CATALOGUE_FILE", "DATABASE_URL", "REDIS_URL", "TEMPORAL_ADDRESS")
    speaker = RoleSpec(
        "speaker",
        ("-I", "-S", "-u", "-c", f"import os, signal\nprint([os.environ[n] for n in {names}])\nsignal.pause()"),
    )
    options = UpOptions(open_directory / "data", 0, host="0.0.0.0", catalogue=CATALOGUE, as_json=True)  # noqa: S104
    running = asyncio.create_task(run_up(options, [GATEWAY, speaker]))
    engine_file = open_directory / "data" / "engine.json"
    log = open_directory / "data" / "logs" / "speaker.log"
    await poll_here(lambda: engine_file.exists() and "]" in log.read_text())
    announced = json.loads(engine_file.read_bytes())
    os.kill(os.getpid(), signal.SIGINT)
    assert await running == 0
    servers = [announced["database_url"], announced["redis_url"], announced["temporal_address"]]
    assert log.read_text().strip() == str(["0.0.0.0", f"{os.getcwd()}/{CATALOGUE}", *servers])  # noqa: S104
    assert announced["url"].startswith("http://127.0.0.1:")


def test_a_second_interrupt_ends_at_once_and_still_leaves_nothing(open_directory: Path) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom cli.up import UpOptions, run_up\n"
        "from engine.embedded.roles import RoleSpec\n"
        "deaf = RoleSpec('deaf', ('-I', '-S', '-c', 'import signal, time\\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\ntime.sleep(99)'), 60)\n"
        f"roles = [RoleSpec('gateway', ('-I', {FAKE_GATEWAY!r})), deaf]\n"
        "asyncio.run(run_up(UpOptions(Path(sys.argv[1]), 0, as_json=True), roles))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(open_directory / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    below = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    poll(lambda: not (open_directory / "data" / "engine.json").exists(), "it has begun to stop")
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"stopping at once" in messages
    poll(lambda: not alive(below), "all its processes are gone")


def test_the_command_line_becomes_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[UpOptions] = []

    async def run(options: UpOptions) -> int:
        taken.append(options)
        return 0

    monkeypatch.setattr(up, "run_up", run)
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.touch()
    arguments = f"--data-dir {tmp_path} --port 0 --host 0.0.0.0 --catalogue {catalogue} --json --postgres-port 1"
    arguments += " --redis-port 2 --temporal-port 3 --temporal-ui-port 4 --workers 5"
    result = CliRunner().invoke(up.app, arguments.split())
    assert result.exit_code == 0, result.output
    assert taken == [UpOptions(tmp_path, 0, "0.0.0.0", catalogue, True, ServerPorts(1, 2, 3, 4), 5)]  # noqa: S104


def test_the_engine_is_a_gateway_a_worker_a_host_fleet_and_a_hook_worker() -> None:
    assert [(role.name, role.arguments[3:]) for role in engine_roles("127.0.0.1", 8002)] == [
        ("gateway", ("serve", "gateway", "--host", "127.0.0.1", "--port", "8002")),
        ("worker", ("serve", "worker")),
        ("hosts", ("serve", "hosts")),
        ("hooks", ("serve", "hooks")),
    ]


def test_there_are_as_many_workers_as_were_asked_for() -> None:
    roles = [role for role in engine_roles("127.0.0.1", 8002, 3) if role.arguments[3:] == ("serve", "worker")]
    assert [role.name for role in roles] == ["worker", "worker-2", "worker-3"]
