"""Dead letters over JSON-RPC and REST: one tenant's own, chosen by id or all, and each use recorded."""

import pytest

from tests.unit.gateway.conftest import Client, ClientOf, Gateway


async def test_letters_are_listed_in_pages_and_shown_whole(client: Client, gateway: Gateway) -> None:
    for number in range(3):
        gateway.letters.add("default", f"{number}-0", execution_id="5e0c0000-0000-4000-8000-000000000001")
    first = (await client.http.get("/api/v1/dead-letters", params={"limit": 2})).json()
    assert [item["letter_id"] for item in first["items"]] == ["2-0", "1-0"]
    assert first["total"] == 3
    second = await client.result("dead_letter.list", {"page_token": first["next_page_token"]})
    assert ([item["letter_id"] for item in second["items"]], second["next_page_token"]) == (["0-0"], None)
    detail = (await client.http.get("/api/v1/dead-letters/1-0")).json()
    assert (detail["fields"], detail["reason"], detail["replayable"]) == ({"b": "["}, "no JSON", True)


async def test_letters_are_replayed_and_purged_by_id_or_all_and_that_is_recorded(
    client: Client, gateway: Gateway
) -> None:
    for number in range(4):
        gateway.letters.add("default", f"{number}-0")
    answer = await client.http.post("/api/v1/dead-letters/replay", json={"letter_ids": ["0-0", "9-9"]})
    assert answer.json() == {"replayed": ["0-0"], "refused": {"9-9": "no such letter"}, "more": False}
    assert await client.result("dead_letter.purge", {"letter_ids": ["1-0"]}) == {"purged": 1}
    assert (await client.result("dead_letter.replay", {"all": True}))["replayed"] == ["2-0", "3-0"]
    assert (await client.http.post("/api/v1/dead-letters/purge", json={"all": True})).json() == {"purged": 0}
    assert gateway.outcomes() == [
        ("dead_letter.replay", "ok"), ("dead_letter.purge", "ok"), ("dead_letter.replay", "ok"),
        ("dead_letter.purge", "ok"),
    ]  # fmt: skip
    assert gateway.log.records[0][1].subject_id == "['0-0', '9-9']"


@pytest.mark.parametrize("chosen", [{}, {"all": False}, {"all": True, "letter_ids": ["1-0"]}, {"letter_ids": []},
                                    {"letter_ids": ["+"]}, {"letter_ids": "1-0"}])  # fmt: skip
async def test_what_is_chosen_must_be_clear(client: Client, chosen: dict[str, object]) -> None:
    for what in ("replay", "purge"):
        assert (await client.error(f"dead_letter.{what}", chosen))["code"] == -32602


async def test_anothers_letters_are_not_there(client_of: ClientOf, gateway: Gateway) -> None:
    gateway.letters.add("default", "1-0")
    stranger = client_of(tenant="stranger")
    assert (await stranger.http.get("/api/v1/dead-letters")).json()["items"] == []
    assert (await stranger.http.get("/api/v1/dead-letters/1-0")).status_code == 404
    assert (await stranger.http.post("/api/v1/dead-letters/purge", json={"all": True})).json() == {"purged": 0}
    assert list(gateway.letters.letters["default"]) == ["1-0"]
