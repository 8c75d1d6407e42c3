"""Dead letters on a real Valkey: kept a week, shown, sent again once, thrown away."""

import asyncio
import time
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from engine.embedded.valkey import ValkeyServer
from engine.errors import NotFoundError, UnavailableError
from engine.events import dead_letters as module
from engine.events import keys
from engine.events.connection import connect
from engine.events.dead_letters import DeadLetters
from engine.events.figures import StreamBacklogs
from engine.settings import Settings
from tests.fakes.streams import eventually, until
from tests.integration.events.crossing import PARTITIONS, Crossing, completed


@pytest.fixture
def letters(redis: Redis) -> DeadLetters:
    return DeadLetters(redis, PARTITIONS)


def entry(execution_id: str, body: bytes = b"[") -> dict[bytes, bytes]:
    return {b"x": execution_id.encode(), b"b": body}


async def test_a_letter_says_what_it_was_and_why_it_is_here(crossing: Crossing, letters: DeadLetters) -> None:
    execution_id = crossing.execution()
    single = {b"event_type": b"agent.\xff", b"execution_id": execution_id.encode(), b"payload": b"{}"}
    body = orjson.dumps([{"type": "a"}, {"type": "b"}, {"type": "a"}, 7])
    await letters.bury(crossing.tenant, 0, "1-0", entry(execution_id, body), "no such execution", 5)
    await letters.bury(crossing.tenant, 1, "2-0", single, "event_type: unknown")
    await letters.bury(crossing.tenant, 1, "3-0", None, "gone")
    page = await letters.page(crossing.tenant, limit=2, page_token=None)
    assert (page.total, [item.entry_id for item in page.items]) == (3, ["3-0", "2-0"])
    [oldest] = (await letters.page(crossing.tenant, limit=2, page_token=page.next_page_token)).items
    assert (oldest.reason, oldest.tries, oldest.partition) == ("no such execution", 5, 0)
    assert (oldest.execution_id, oldest.event_types, oldest.replayable) == (execution_id, ("a", "b"), True)
    assert oldest.size_bytes == len(body) + 36
    gone, odd = page.items
    assert (gone.execution_id, gone.replayable, gone.event_types) == (None, False, ())
    assert odd.event_types == ("agent.\ufffd",)
    detail = await letters.get(crossing.tenant, odd.letter_id)
    assert detail.fields == {"event_type": "agent.\ufffd", "execution_id": execution_id, "payload": "{}"}
    with pytest.raises(NotFoundError):
        await letters.get(crossing.tenant, "1-1")


@pytest.mark.parametrize("body", [b"[", b"{}", b"[" + b" " * module.TYPES_READ_BYTES_MAX + b"]"])
async def test_of_what_cannot_be_read_no_types_are_shown(crossing: Crossing, letters: DeadLetters, body: bytes) -> None:
    await letters.bury(crossing.tenant, 0, "1-0", entry(crossing.execution(), body), "odd")
    [item] = (await letters.page(crossing.tenant, limit=1, page_token=None)).items
    assert item.event_types == ()


async def test_a_letter_is_replayed_once_into_its_executions_partition(
    crossing: Crossing, letters: DeadLetters
) -> None:
    execution_id = crossing.execution(1)
    fields: dict[Any, Any] = {"x": execution_id, "b": orjson.dumps([completed()])}
    bridge = crossing.start()
    await crossing.redis.xadd(crossing.stream(0), fields)  # in the wrong partition
    await eventually(crossing.dead_letters)
    [letter] = (await letters.page(crossing.tenant, limit=9, page_token=None)).items
    outcomes = await asyncio.gather(*(letters.replay(crossing.tenant, [letter.letter_id]) for _ in range(3)))
    assert sorted(len(outcome.replayed) for outcome in outcomes) == [0, 0, 1]
    await until(lambda: len(crossing.launcher.batches(execution_id)) == 1)
    assert await crossing.dead_letters() == []
    assert bridge._leases.fences


async def test_replaying_all_is_done_in_parts_and_leaves_what_cannot_be(
    crossing: Crossing, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPLAY_MAX", 2)
    monkeypatch.setattr(module, "FIELD_BYTES_MAX", 100)
    execution_id = crossing.execution()
    await letters.bury(crossing.tenant, 0, "1-0", {b"b": b"["}, "no id")
    await letters.bury(crossing.tenant, 0, "2-0", entry(execution_id), "not JSON")
    await letters.bury(crossing.tenant, 0, "3-0", entry(execution_id, b"x" * 101), "too large")
    first = await letters.replay(crossing.tenant, None)
    assert (len(first.replayed), list(first.refused.values()), first.more) == (1, ["it names no execution"], True)
    second = await letters.replay(crossing.tenant, None)
    assert (second.replayed, second.more) == ((), False)
    assert set(second.refused.values()) == {"it names no execution", "it was too large to be kept whole"}
    assert await crossing.waiting() == 1


async def test_letters_are_purged_by_id_or_all_and_gone_after_a_week(
    crossing: Crossing, letters: DeadLetters, redis: Redis
) -> None:
    for number in range(4):
        await letters.bury(crossing.tenant, 0, f"{number}-0", entry(crossing.execution()), "odd")
    page = await letters.page(crossing.tenant, limit=9, page_token=None)
    assert (await letters.purge(crossing.tenant, [page.items[0].letter_id, "1-1"])).purged == 1
    assert (await letters.purge(crossing.tenant, [])).purged == 0
    assert (await letters.purge(crossing.tenant, None)).purged == 3
    week_old = int((time.time() - 7 * 24 * 3600 - 60) * 1000)
    fields: dict[Any, Any] = {"reason": "old"}
    await redis.xadd(keys.dead_letters(crossing.tenant), fields, id=f"{week_old}-0")
    assert (await letters.page(crossing.tenant, limit=9, page_token=None)).items == ()
    assert await redis.xlen(keys.dead_letters(crossing.tenant)) == 0


async def test_without_the_server_the_answer_says_so(valkey_server: ValkeyServer, crossing: Crossing) -> None:
    url = f"redis://127.0.0.1:{valkey_server.port}/0"  # without its password
    client = connect(Settings.model_validate({"redis_url": url}), repeat=False)
    with pytest.raises(UnavailableError):
        await DeadLetters(client, PARTITIONS).get(crossing.tenant, "1-0")
    await client.aclose()


async def test_letters_are_bounded_by_bytes_and_the_oldest_make_room(
    crossing: Crossing, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LETTERS_BYTES_MAX", 100_000)
    for number in range(30):
        await letters.bury(crossing.tenant, 0, f"{number}-0", entry(crossing.execution(), b"x" * 10_000), "odd")
    found = await crossing.dead_letters()
    assert [letter[b"entry_id"] for letter in found] == [b"%d-0" % number for number in range(21, 30)]
    held = sum(int(letter[b"kept"]) for letter in found)
    assert 90_000 < held <= 100_000
    assert module.held_bytes(found[0], found[-1]) == held
    assert (await StreamBacklogs(crossing.redis, PARTITIONS).backlogs()).dead_letter_bytes == held
    # One that is larger than all may be is kept by itself.
    await letters.bury(crossing.tenant, 0, "99-0", entry(crossing.execution(), b"x" * 120_000), "odd")
    assert [letter[b"entry_id"] for letter in await crossing.dead_letters()] == [b"99-0"]
    # The sum goes on when there is none left.
    await letters.purge(crossing.tenant, None)
    await letters.bury(crossing.tenant, 0, "100-0", entry(crossing.execution(), b"x"), "odd")
    [letter] = await crossing.dead_letters()
    assert module.held_bytes(letter, letter) == int(letter[b"kept"]) == int(letter[b"total"])


async def test_a_letter_of_many_fields_is_cut_off_as_a_whole(crossing: Crossing, letters: DeadLetters) -> None:
    fields = {b"f%d" % number: b"x" * module.FIELD_BYTES_MAX for number in range(20)}
    await letters.bury(crossing.tenant, 0, "1-0", fields, "odd")
    [letter] = await crossing.dead_letters()
    assert int(letter[b"kept"]) < module.LETTER_BYTES_MAX + 1000
    [item] = (await letters.page(crossing.tenant, limit=1, page_token=None)).items
    assert item.size_bytes == 20 * module.FIELD_BYTES_MAX
    assert not item.replayable


async def test_an_entry_of_thousands_of_fields_is_buried_too(crossing: Crossing, letters: DeadLetters) -> None:
    await letters.bury(crossing.tenant, 0, "1-0", {b"f%d" % number: b"" for number in range(20_000)}, "odd")
    [letter] = await crossing.dead_letters()
    assert letter[b"cut"] == b"1"
    assert b"entry:f0" in letter
