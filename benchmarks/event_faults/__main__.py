"""Runs it: `python -m benchmarks.event_faults [--events N] [--seed N]`. Exit code 1 when the outcome is not sound."""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from benchmarks.event_faults.consumer import SCHEMA
from benchmarks.event_faults.judging import Outcome, judge
from benchmarks.event_faults.plan import PARTITIONS, TENANTS, Workload
from engine.embedded.postgres import PostgresServer
from engine.embedded.valkey import ValkeyServer
from engine.events import keys

EVENTS: Final = 1_000_000
EXECUTIONS: Final = 40
PRODUCERS: Final = 2
BRIDGES: Final = 3
KILL_SECONDS: Final = 3.0
SECONDS_MAX: Final = 1_800.0
POLL_SECONDS: Final = 0.25
ENDED_SECONDS: Final = 10.0
VICTIMS: Final = ("bridge", "bridge", "bridge", "producer", "valkey")


class Arena:
    """The servers, the processes, and whoever kills them."""

    def __init__(self, directory: Path, work: Workload, kill_seconds: float) -> None:
        self._directory = directory
        self._work = work
        self._kill_seconds = kill_seconds
        self._chance = random.Random(work.seed)
        self._valkey = ValkeyServer(directory / "valkey")
        self._postgres = PostgresServer(directory / "postgres", durable=False)
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._finished: set[str] = set()
        self.kills = {"bridge": 0, "producer": 0, "valkey": 0}

    async def run(self) -> Outcome:
        await self._start_valkey()
        await self._postgres.start()
        try:
            connection = await asyncpg.connect(self._postgres.url)
            try:
                await self._prepare(connection)
                began = time.monotonic()
                await self._until_done()
                outcome = Outcome(self._work.events, time.monotonic() - began, dict(self.kills))
                await self._check(connection, outcome)
            finally:
                await connection.close()
        finally:
            for child in self._children.values():
                child.kill()
                child.wait(ENDED_SECONDS)
            await self._valkey.stop()
            await self._postgres.stop()
        return outcome

    async def _start_valkey(self) -> None:
        """Agents keep what they have reported until it is consumed, since a server may lose its last second. These
        producers do not: so their server keeps what it has acknowledged."""
        await self._valkey.start()
        async with Redis.from_url(self._valkey.url) as client:
            await client.config_set("appendfsync", "always")

    async def _prepare(self, connection: Any) -> None:
        await connection.execute(SCHEMA)
        ids = [self._work.execution(number)[1] for number in range(self._work.executions)]
        await connection.execute("INSERT INTO ledgers SELECT id, 0, '0-0', '{}', 0 FROM unnest($1::uuid[]) AS id", ids)
        async with Redis.from_url(self._valkey.url) as client:
            await client.sadd(keys.TENANTS, *(self._work.execution(n)[0] for n in range(self._work.executions)))
        for number in range(BRIDGES):
            self._start(f"bridge-{number}")
        for number in range(PRODUCERS):
            self._start(f"producer-{number}")

    def _start(self, name: str) -> None:
        kind, _, number = name.partition("-")
        job: dict[str, Any] = {"redis_url": self._valkey.url, "database_url": self._postgres.url}
        if kind == "producer":
            job["work"] = asdict(self._work)
            job["noted"] = str(self._directory / f"{name}.json")
            job["executions"] = list(range(int(number), self._work.executions, PRODUCERS))
        module = "benchmarks.event_faults." + ("consumer" if kind == "bridge" else kind)
        with (self._directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
            )
        assert child.stdin is not None
        child.stdin.write(json.dumps(job) + "\n")
        child.stdin.close()
        self._children[name] = child

    async def _until_done(self) -> None:
        deadline, kill_at = time.monotonic() + SECONDS_MAX, time.monotonic() + self._kill_seconds
        while not (self._producers_done() and await self._waiting() == 0):
            if time.monotonic() > deadline:
                raise SystemExit(f"not done within {SECONDS_MAX:g} s: {await self._waiting()} entries wait")
            for name, child in list(self._children.items()):
                if name.startswith("bridge") and child.poll() is not None:
                    raise SystemExit(f"{name} has ended by itself: {self._said(name)}")
            if time.monotonic() > kill_at:
                await self._kill()
                kill_at = time.monotonic() + self._kill_seconds
            await asyncio.sleep(POLL_SECONDS)

    def _producers_done(self) -> bool:
        for name, child in self._children.items():
            if name.startswith("producer") and child.poll() is not None:
                if child.returncode != 0:
                    raise SystemExit(f"{name} has failed: {self._said(name)}")
                self._finished.add(name)
        return len(self._finished) == PRODUCERS

    def _said(self, name: str) -> str:
        return (self._directory / f"{name}.log").read_text(errors="replace")[-2_000:]

    async def _waiting(self) -> int:
        """Entries that are there; -1 while nobody can tell."""
        try:
            async with Redis.from_url(self._valkey.url, socket_timeout=5) as client, client.pipeline(False) as pipe:
                for tenant in range(TENANTS):
                    for partition in range(PARTITIONS):
                        pipe.xlen(keys.partition_stream(f"faults-{tenant}", partition))
                return sum(await pipe.execute())
        except (RedisError, OSError):
            return -1

    async def _kill(self) -> None:
        kind = self._chance.choice(VICTIMS)
        if kind == "valkey":
            pid, port = self._valkey.pid, self._valkey.port
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await self._valkey.stop()
            self._valkey = ValkeyServer(self._directory / "valkey", port)
            await self._start_valkey()
        else:
            alive = [name for name in self._children if name.startswith(kind) and name not in self._finished]
            if not alive:
                return
            name = self._chance.choice(sorted(alive))
            self._children[name].kill()
            if await asyncio.to_thread(self._children[name].wait, ENDED_SECONDS) == 0:
                self._finished.add(name)  # it had just ended by itself
                return
            self._start(name)
        self.kills[kind] += 1

    async def _check(self, connection: Any, outcome: Outcome) -> None:
        found = {}
        for number in range(self._work.executions):
            rows = await connection.fetch(
                "SELECT task_id FROM effects WHERE execution_id = $1 ORDER BY position",
                UUID(self._work.execution(number)[1]),
            )
            found[number] = [row["task_id"] for row in rows]
        tags: list[str | None] = []
        async with Redis.from_url(self._valkey.url) as client:
            for tenant in range(TENANTS):
                letters: Any = await client.xrange(keys.dead_letters(f"faults-{tenant}"))
                tags += [fields[b"entry:tag"].decode() if b"entry:tag" in fields else None for _, fields in letters]
        judge(outcome, self._work, found, tags)


def run(directory: Path, events: int, seed: int, executions: int, kill_seconds: float) -> Outcome:
    return asyncio.run(Arena(directory, Workload(seed, events, executions), kill_seconds).run())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.event_faults", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--executions", type=int, default=EXECUTIONS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-seconds", type=float, default=KILL_SECONDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestrator-faults-") as directory:
        Path(directory).chmod(0o711)
        outcome = run(Path(directory), options.events, options.seed, options.executions, options.kill_seconds)
    print(json.dumps({**asdict(outcome), "sound": outcome.sound}))
    return 0 if outcome.sound else 1


if __name__ == "__main__":
    sys.exit(main())
