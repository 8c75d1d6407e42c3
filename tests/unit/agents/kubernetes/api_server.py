"""An API server that answers what a test says: for what a healthy one does not do on request."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.agents.kubernetes.client import ClusterAccess, KubernetesApi, open_api
from engine.breakers import CircuitBreaker


@dataclass
class Answer:
    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    """Nothing is answered, and the connection stays."""
    lines: list[Any] | None = None
    """Instead of the body: what a watch tells."""


def failure(status: int, reason: str, message: str = "told so", **headers: str) -> Answer:
    body = {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": message}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class ScriptedServer:
    """Answers in order; the last answer for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next((int(line[15:]) for line in head.lower().split("\r\n") if line[:15] == "content-length:"), 0)
            await reader.readexactly(length)
            self.requests.append(head.split("\r\n")[0])
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer.silent:
                await reader.read()
                return
            if answer.lines is not None:
                body = b"".join(json.dumps(line).encode() + b"\n" for line in answer.lines)
            else:
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            headers = {"Content-Length": str(len(body)), "Connection": "close", **answer.headers}
            lines = [f"HTTP/1.1 {answer.status} told", *(f"{name}: {value}" for name, value in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def scripted(
    directory: Path, *answers: Answer, request_seconds: float = 3.0, breaker: CircuitBreaker | None = None
) -> AsyncIterator[tuple[KubernetesApi, ScriptedServer]]:
    script = ScriptedServer(*answers)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    document = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = directory / "kubeconfig"
    file.write_text(json.dumps(document))
    try:
        async with open_api(ClusterAccess(file, request_seconds=request_seconds), breaker) as api:
            yield api, script
    finally:
        server.close()
