"""`orchestrator up` with small roles, as a process that tests can kill: `supervise.py DATA_DIR PORT`."""

import asyncio
import sys
from pathlib import Path

from cli.up import UpOptions, run_up
from engine.embedded.roles import RoleSpec

FAKE_GATEWAY = str(Path(__file__).with_name("fake_gateway.py"))

if __name__ == "__main__":
    options = UpOptions(data_dir=Path(sys.argv[1]), port=int(sys.argv[2]), as_json=True)
    roles = [
        RoleSpec("gateway", ("-I", FAKE_GATEWAY)),
        RoleSpec("worker", ("-I", "-c", "import signal; signal.pause()")),
    ]
    raise SystemExit(asyncio.run(run_up(options, roles)))
