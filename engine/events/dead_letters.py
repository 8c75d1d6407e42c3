"""Dead letters: entries that can never be delivered, kept for a week where operators find them.

One stream a tenant. A letter holds the entry as it was (a very large field is cut off, and the letter then cannot be
replayed), its reason, and how often it was tried. Replaying writes the entry anew into the partition that its execution
belongs to, and takes the letter away in the same step.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.contracts.dead_letters import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterPage,
    DeadLettersPurged,
    DeadLettersReplayed,
)
from engine.contracts.streams import partition_of
from engine.errors import NotFoundError, UnavailableError
from engine.events import keys
from engine.events.functions import Functions
from engine.observability.log import get_logger

log = get_logger(__name__)

KEPT_SECONDS: Final = 7 * 24 * 3600
LETTERS_MAX: Final = 10_000
"""Of one tenant. Whoever writes nothing but nonsense pushes their own letters out, and nobody's memory."""

LETTERS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one tenant, about; the oldest make room. What was replayed or purged out of the middle counts until those before
it have gone."""

LETTER_BYTES_MAX: Final = 1024 * 1024
"""Of one letter, over all its fields: what is above is cut off."""

FIELDS_MAX: Final = 1_000
"""A server-side function takes some thousands of arguments; what has more fields must be buried all the same."""

FIELD_BYTES_MAX: Final = 256 * 1024
REPLAY_MAX: Final = 500
TYPES_SHOWN_MAX: Final = 5
TYPES_READ_BYTES_MAX: Final = 64 * 1024
ANSWER_SECONDS: Final = 5.0
_ENTRY: Final = b"entry:"

Fields = Mapping[bytes, bytes]


class DeadLetters:
    """Implements `engine.ports.DeadLetterBox`, and burying."""

    def __init__(self, redis: Redis, partitions: int) -> None:
        self._redis = redis
        self._functions = Functions(redis)
        self._partitions = partitions

    async def bury(
        self, tenant: str, partition: int, entry_id: str, fields: Fields | None, reason: str, tries: int = 1
    ) -> None:
        """Raises RedisError or OSError: the entry then stays pending."""
        log.warning("bridge.dead_letter", tenant=tenant, partition=partition, entry_id=entry_id, reason=reason)
        kept = _cut_off(fields or {})
        letter: dict[Any, Any] = {
            **{_ENTRY + name: value for name, value in kept.items()},
            b"reason": reason.encode(),
            b"partition": str(partition).encode(),
            b"entry_id": entry_id.encode(),
            b"tries": str(tries).encode(),
            b"size": str(sum(len(value) for value in (fields or {}).values())).encode(),
        }
        if kept != (fields or {}):
            letter[b"cut"] = b"1"
        size = sum(len(name) + len(value) for name, value in letter.items())
        parts = [part for field in letter.items() for part in field]
        arguments = [LETTERS_MAX, LETTERS_BYTES_MAX, _oldest_id(), KEPT_SECONDS, size, *parts]
        pushed = await self._functions.call("orc_bury_letter", [keys.dead_letters(tenant)], arguments)
        if pushed:
            log.warning("bridge.dead_letters_pushed_out", tenant=tenant, letters=pushed)

    async def page(self, tenant: str, *, limit: int, page_token: str | None) -> DeadLetterPage:
        """The newest first."""
        stream = keys.dead_letters(tenant)
        before = "+" if page_token is None else f"({page_token}"
        async with _available(), self._redis.pipeline(transaction=False) as pipe:
            pipe.xtrim(stream, minid=_oldest_id(), approximate=False)
            pipe.xrevrange(stream, max=before, min="-", count=limit + 1)
            pipe.xlen(stream)
            _, entries, total = await pipe.execute()
        items = tuple(_letter(entry_id, fields) for entry_id, fields in entries[:limit])
        more = len(entries) > limit
        return DeadLetterPage(items=items, next_page_token=items[-1].letter_id if more else None, total=total)

    async def get(self, tenant: str, letter_id: str) -> DeadLetterDetail:
        fields = await self._fields(tenant, letter_id)
        letter = _letter(letter_id.encode(), fields)
        shown = {
            name.decode(errors="replace"): value.decode(errors="replace") for name, value in _entry(fields).items()
        }
        return DeadLetterDetail(**letter.model_dump(), fields=shown)

    async def replay(self, tenant: str, letter_ids: Sequence[str] | None) -> DeadLettersReplayed:
        """These, or with None the oldest ones. A letter is replayed once, however many ask for it."""
        more = False
        if letter_ids is None:
            async with _available():
                oldest: Any = await self._redis.xrange(keys.dead_letters(tenant), count=REPLAY_MAX + 1)
            letter_ids, more = [entry_id.decode() for entry_id, _ in oldest[:REPLAY_MAX]], len(oldest) > REPLAY_MAX
        replayed, refused = [], {}
        for letter_id in letter_ids:
            try:
                problem = await self._replay(tenant, letter_id)
            except NotFoundError:
                problem = "no such letter"
            if problem is None:
                replayed.append(letter_id)
            else:
                refused[letter_id] = problem
        return DeadLettersReplayed(replayed=tuple(replayed), refused=refused, more=more and bool(replayed))

    async def purge(self, tenant: str, letter_ids: Sequence[str] | None) -> DeadLettersPurged:
        """These, or with None all."""
        stream = keys.dead_letters(tenant)
        async with _available():
            if letter_ids is None:
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.xlen(stream)
                    pipe.delete(stream)
                    purged, _ = await pipe.execute()
            else:
                purged = await self._redis.xdel(stream, *letter_ids) if letter_ids else 0
        return DeadLettersPurged(purged=purged)

    async def _fields(self, tenant: str, letter_id: str) -> Fields:
        async with _available():
            found: Any = await self._redis.xrange(keys.dead_letters(tenant), letter_id, letter_id)
        if not found:
            raise NotFoundError("no such letter")
        fields: Fields = found[0][1]
        return fields

    async def _replay(self, tenant: str, letter_id: str) -> str | None:
        fields = await self._fields(tenant, letter_id)
        entry, execution_id = _entry(fields), _execution_id(fields)
        if b"cut" in fields:
            return "it was too large to be kept whole"
        if execution_id is None:
            return "it names no execution"
        names = [keys.dead_letters(tenant), keys.partition_stream(tenant, partition_of(execution_id, self._partitions))]
        arguments = [letter_id, *(part for field in entry.items() for part in field)]
        async with _available():
            moved = await self._functions.call("orc_replay_letter", names, arguments)
        return None if moved else "no such letter"


def held_bytes(first: Fields, last: Fields) -> int:
    """What the letters from the first to the last hold, about."""
    return int(last.get(b"total", b"0")) - int(first.get(b"total", b"0")) + int(first.get(b"kept", b"0"))


def _cut_off(fields: Fields) -> dict[bytes, bytes]:
    room, kept = LETTER_BYTES_MAX, {}
    for name, value in islice(fields.items(), FIELDS_MAX):
        if room <= 0:
            break
        kept[name] = value[: min(FIELD_BYTES_MAX, room)]
        room -= len(name) + len(kept[name])
    return kept


def _letter(entry_id: bytes, fields: Fields) -> DeadLetter:
    letter_id = entry_id.decode()
    execution_id = _execution_id(fields)
    return DeadLetter(
        letter_id=letter_id,
        reason=_text(fields.get(b"reason", b"")),
        tries=int(fields.get(b"tries", b"1")),
        buried_at=datetime.fromtimestamp(int(letter_id.partition("-")[0]) / 1000, UTC),
        partition=int(fields.get(b"partition", b"0")),
        entry_id=_text(fields.get(b"entry_id", b"")),
        execution_id=execution_id,
        event_types=_event_types(_entry(fields)),
        size_bytes=int(fields.get(b"size", b"0")),
        replayable=execution_id is not None and b"cut" not in fields,
    )


def _entry(fields: Fields) -> dict[bytes, bytes]:
    return {name.removeprefix(_ENTRY): value for name, value in fields.items() if name.startswith(_ENTRY)}


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _execution_id(fields: Fields) -> str | None:
    entry = _entry(fields)
    try:
        return str(UUID((entry.get(b"x") or entry.get(b"execution_id") or b"").decode()))
    except ValueError:
        return None


def _event_types(entry: Fields) -> tuple[str, ...]:
    if b"event_type" in entry:
        return (_text(entry[b"event_type"])[:100],)
    body = entry.get(b"b", b"")
    if len(body) > TYPES_READ_BYTES_MAX:
        return ()
    try:
        events = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(events, list):
        return ()
    types = dict.fromkeys(str(event.get("type"))[:100] for event in events if isinstance(event, dict))
    return tuple(types)[:TYPES_SHOWN_MAX]


def _oldest_id() -> str:
    return f"{int((time.time() - KEPT_SECONDS) * 1000)}-0"


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
