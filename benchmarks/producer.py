"""Writes progress reports at a fixed rate, whoever reads them: `python -m benchmarks.producer`, the job on stdin.

A client that is slow would measure itself: what it writes is put together once for each of a few turns, as the bytes
that go over the wire.
"""

import json
import socket
import sys
import time
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import orjson

TICK_SECONDS: Final = 0.01
VARIANTS: Final = 10
"""Turns with other figures, again and again; the last word of each is what counts."""
ANSWER_BYTES: Final = 1 << 20
CONNECT_SECONDS: Final = 10.0


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def entries(job: dict[str, Any], variant: int) -> list[bytes]:
    """One turn over all executions and their tasks, as commands; each says `packed` events."""
    found = []
    packed, tasks = job["packed"], job["tasks"]
    now_ms = int(time.time() * 1000)
    for execution_id, stream in job["targets"]:
        reports = [_report(n, variant, now_ms) for n in range(tasks)]
        if packed == 1:
            found += [_single(stream, execution_id, report, now_ms) for report in reports]
            continue
        reports *= -(-packed // tasks)
        body = orjson.dumps(reports[:packed])
        found.append(command(b"XADD", stream.encode(), b"*", b"x", execution_id.encode(), b"b", body))
    return found


def _report(task: int, variant: int, now_ms: int) -> dict[str, Any]:
    return {
        "type": "agent.task_progress", "task_id": f"t{task}", "agent_id": f"w-{task + 1}", "epoch": 1, "attempt": 1,
        "at_ms": now_ms, "progress": value(task, variant),
    }  # fmt: skip


def value(task: int, variant: int) -> float:
    return ((task + variant) % 100) / 100


def _single(stream: str, execution_id: str, report: dict[str, Any], now_ms: int) -> bytes:
    kind, payload = report["type"], {k: v for k, v in report.items() if k not in ("type", "at_ms")}
    return command(
        b"XADD", stream.encode(), b"*", b"event_type", kind.encode(), b"execution_id", execution_id.encode(),
        b"timestamp", str(now_ms).encode(), b"payload", orjson.dumps(payload),
    )  # fmt: skip


class Wire:
    """One connection; answers are read and counted, not looked at, but for errors."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), CONNECT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.password:
            user = unquote(address.username or "default")
            self.send([command(b"AUTH", user.encode(), unquote(address.password).encode())])

    def send(self, commands: list[bytes]) -> None:
        self._socket.sendall(b"".join(commands))
        waiting, answer = len(commands), b""
        while True:
            answer += self._socket.recv(ANSWER_BYTES)
            if answer[:1] == b"-" or b"\n-" in answer:
                raise SystemExit(answer.decode(errors="replace")[:500])
            if answer.startswith(b"+"):
                return
            if answer.count(b"\r\n") >= 2 * waiting and answer.endswith(b"\r\n"):
                return


def main() -> None:
    job = json.loads(sys.stdin.readline())
    wire = Wire(job["redis_url"])
    turns = [entries(job, variant) for variant in range(VARIANTS)]
    flat = [(entry, variant) for variant, turn in enumerate(turns) for entry in turn]
    entry_rate = job["rate"] / job["packed"]
    began = time.monotonic()
    written, at = 0, 0
    while (elapsed := time.monotonic() - began) < job["seconds"]:
        due = int(entry_rate * elapsed) - written
        if due <= 0:
            time.sleep(TICK_SECONDS)
            continue
        due = min(due, len(flat))
        chosen = [flat[(at + n) % len(flat)][0] for n in range(due)]
        wire.send(chosen)
        at, written = (at + due) % len(flat), written + due
    seconds = time.monotonic() - began
    last_turn = turns[VARIANTS - 1]
    for first in range(0, len(last_turn), 500):
        wire.send(last_turn[first : first + 500])
    said = {f"t{task}": value(task, VARIANTS - 1) for task in range(job["tasks"])}
    last = {execution_id: said for execution_id, _ in job["targets"]}
    print(json.dumps({"events": written * job["packed"], "seconds": seconds, "last": last}))


if __name__ == "__main__":
    main()
