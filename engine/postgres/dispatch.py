"""What dispatch reads: the bodies of tasks, the results of their dependencies, large payloads by reference."""

import asyncio
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from engine.contracts.limits import RESULT_BYTES_MAX, TASKS_MAX
from engine.contracts.views import TaskResultView
from engine.errors import InvalidParametersError, NotFoundError, TooLargeError
from engine.ports import StoredBody
from engine.postgres.pool import Database

COMPRESS_ABOVE_BYTES: Final = 1024
THREAD_ABOVE_BYTES: Final = 64 * 1024
"""Above this, compression takes so long (about a millisecond) that it must not hold up the event loop."""
ZLIB_LEVEL: Final = 1

GATHERED_BYTES_MAX: Final = 2 * RESULT_BYTES_MAX
"""Large results of a `for_each` task's elements, together and compressed, that are read as one list."""


class PostgresDispatchStore:
    """Implements `engine.ports.DispatchStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def body(self, tenant: str, execution_id: UUID) -> StoredBody:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["dispatch.body"], tenant, execution_id)
        if row is None:
            raise NotFoundError("no such execution")
        return StoredBody(
            execution_id=str(row["execution_id"]),
            workflow_id=str(row["workflow_id"]),
            input_data=row["input_data"],
            definition=row["definition"],
            trace_id=str(row["trace_id"]),
        )

    async def results(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> dict[str, Any]:
        """Of completed tasks only: others are left out."""
        if len(task_ids) > TASKS_MAX:
            raise InvalidParametersError(f"at most {TASKS_MAX} tasks at once")
        rows = await self._completed(tenant, execution_id, task_ids)
        found: dict[str, Any] = {}
        for row in rows:
            try:
                found[row["task_id"]] = await self._result(tenant, execution_id, row)
            except TooLargeError as error:
                # Those who wait for it go on; what they get says why it is not there.
                found[row["task_id"]] = {"error": {"code": "RESULTS_TOO_LARGE", "message": error.message}}
        return found

    async def result(self, tenant: str, execution_id: UUID, task_id: str) -> TaskResultView:
        rows = await self._completed(tenant, execution_id, [task_id])
        if not rows:
            raise NotFoundError("no such task, or it has no result")
        (row,) = rows
        return TaskResultView(
            task_id=row["task_id"],
            state=row["state"],
            attempt=row["attempt"],
            result=await self._result(tenant, execution_id, row),
        )

    async def _result(self, tenant: str, execution_id: UUID, row: asyncpg.Record) -> Any:
        """A `for_each` task's result is the list of its elements' results; it is not stored a second time."""
        if row["elements"] is None:
            return await _resolved(row)
        names = [f"{row['task_id']}[{n}]" for n in range(row["elements"])]
        found = {element["task_id"]: element for element in await self._completed(tenant, execution_id, names)}
        size_bytes = sum(len(element["body"] or b"") for element in found.values())
        if size_bytes > GATHERED_BYTES_MAX:
            raise TooLargeError(
                f"the results of {len(names)} elements have {size_bytes} bytes, compressed; ask for them one by one",
                bytes_max=GATHERED_BYTES_MAX,
            )
        return [await _resolved(found[name]) if name in found else None for name in names]

    async def _completed(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Sequence[asyncpg.Record]:
        async with self._database.tenant_connection(tenant) as connection:
            return await connection.fetch(self._queries["dispatch.results"], tenant, execution_id, list(task_ids))

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        if len(payload) > RESULT_BYTES_MAX:
            raise TooLargeError(f"a payload may have {RESULT_BYTES_MAX} bytes", bytes_max=RESULT_BYTES_MAX)
        reference = "sha256:" + hashlib.sha256(payload).hexdigest()
        encoding, body = await _compressed(payload)
        async with self._database.tenant_connection(tenant) as connection:
            if not await connection.fetchval(self._queries["dispatch.has_payload"], tenant, execution_id, reference):
                await connection.execute(
                    self._queries["dispatch.put_payload"],
                    tenant,
                    execution_id,
                    reference,
                    encoding,
                    len(payload),
                    body,
                )
        return reference

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["dispatch.payload"], tenant, execution_id, reference)
        if row is None:
            raise NotFoundError("no such payload")
        return await decompressed(row["encoding"], row["body"])


async def _resolved(row: asyncpg.Record) -> Any:
    if row["result_ref"] is None:
        return row["result"]
    if row["body"] is None:
        raise NotFoundError(f"the result of task {row['task_id']} refers to no payload")
    return orjson.loads(await decompressed(row["encoding"], row["body"]))


async def _compressed(payload: bytes) -> tuple[str, bytes]:
    if len(payload) <= COMPRESS_ABOVE_BYTES:
        return "identity", payload
    if len(payload) <= THREAD_ABOVE_BYTES:
        return "zlib", zlib.compress(payload, ZLIB_LEVEL)
    return "zlib", await asyncio.to_thread(zlib.compress, payload, ZLIB_LEVEL)


async def decompressed(encoding: str, body: bytes) -> bytes:
    if encoding == "identity":
        return body
    if len(body) <= THREAD_ABOVE_BYTES:
        return zlib.decompress(body)
    return await asyncio.to_thread(zlib.decompress, body)
