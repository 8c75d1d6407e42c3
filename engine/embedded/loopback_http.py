"""The little HTTP that supervising needs: ask a server on this machine whether it is ready, or set something in it."""

import asyncio
import http.client
import json
from typing import Any

from engine.embedded.process import PROBE_TIMEOUT_SECONDS


async def exchange(
    host: str,
    port: int,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    timeout_seconds: float = PROBE_TIMEOUT_SECONDS,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON document (text that is none comes as `message`). Raises OSError when nobody answers."""
    return await asyncio.to_thread(_exchange, host, port, method, path, body, timeout_seconds)


def _exchange(
    host: str, port: int, method: str, path: str, body: dict[str, Any] | None, timeout_seconds: float
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"no HTTP at {host}:{port}: {error!r}") from error
    finally:
        connection.close()
    try:
        answer = json.loads(content)
    except ValueError:
        answer = content[:200].decode("utf-8", "replace")
    return response.status, answer if isinstance(answer, dict) else {"message": str(answer)}
