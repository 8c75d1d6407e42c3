"""As much of the Kubernetes API as the tests themselves need, apart from the engine's own client."""

import asyncio
import ssl
from typing import Any, Final

import httpx

TIMEOUT_SECONDS: Final = 10.0


class ApiClient:
    """One user's calls, each on a connection of its own."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._context = context

    async def request(
        self, method: str, path: str, body: object = None, kind: str = "application/json"
    ) -> tuple[int, Any]:
        """(status, document). Raises OSError when nobody answers."""
        headers = {**self._headers, "Content-Type": kind}
        try:
            # In a thread: asyncio leaves a transport behind when a server that is just starting breaks off a handshake.
            answer = await asyncio.to_thread(self._send, method, self._url + path, body, headers)
        except httpx.TransportError as error:
            raise OSError(f"{method} {path}: {error!r}") from error
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, answer.text

    def _send(self, method: str, url: str, body: object, headers: dict[str, str]) -> httpx.Response:
        with httpx.Client(verify=self._context, timeout=TIMEOUT_SECONDS) as client:
            return client.request(method, url, json=body, headers=headers)

    async def get(self, path: str) -> Any:
        return await self._expected("GET", path, None)

    async def create(self, path: str, body: object) -> Any:
        return await self._expected("POST", path, body)

    async def delete(self, path: str) -> Any:
        return await self._expected("DELETE", path, None)

    async def _expected(self, method: str, path: str, body: object) -> Any:
        status, document = await self.request(method, path, body)
        if status >= httpx.codes.BAD_REQUEST:
            raise AssertionError(f"{method} {path}: {status} {document}")
        return document
