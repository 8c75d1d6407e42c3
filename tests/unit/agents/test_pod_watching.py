"""A mirror is what the server has, whatever breaks in between, and tells each end once."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.agents.kubernetes import watching
from engine.agents.kubernetes.client import GoneError, ThrottledError, WatchEvent
from engine.agents.kubernetes.watching import Change, Mirror, Pacing, Watch
from engine.concurrency import end_all
from engine.errors import UnavailableError
from tests.fakes.streams import until

Document = dict[str, Any]


@dataclass(frozen=True)
class Thing:
    uid: str
    state: int


def read(document: Any) -> Thing:
    return Thing(document["metadata"]["uid"], document["state"])


@dataclass
class Server:
    """Objects with versions, and the events that led to them."""

    objects: dict[str, Document] = field(default_factory=dict)
    log: list[tuple[int, str, Document]] = field(default_factory=list)
    version: int = 0

    def put(self, name: str, state: int) -> None:
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.version += 1
        uid = self.objects[name]["metadata"]["uid"] if name in self.objects else f"{name}-{self.version}"
        metadata = {"name": name, "uid": uid, "resourceVersion": str(self.version)}
        self.objects[name] = {"metadata": metadata, "state": state}
        self.log.append((self.version, kind, self.objects[name]))

    def delete(self, name: str) -> None:
        document = self.objects.pop(name, None)
        if document is not None:
            self.version += 1
            metadata = {**document["metadata"], "resourceVersion": str(self.version)}
            self.log.append((self.version, "DELETED", {**document, "metadata": metadata}))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 2)),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.sampled_from(["see", "list", "bookmark"]), st.just(""), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(STEPS)
def test_a_mirror_ends_as_the_server_and_tells_each_end_once(steps: list[tuple[str, str, int]]) -> None:
    server, mirror = Server(), Mirror(read, read)
    told: list[Change[Thing]] = []
    seen = 0

    def see(events: int) -> None:
        nonlocal seen
        for version, kind, document in [entry for entry in server.log if entry[0] > seen][:events]:
            told.extend(mirror.event(kind, document))
            seen = version

    def relist() -> None:
        nonlocal seen
        told.extend(mirror.listed(mirror.read_page(list(server.objects.values())), str(server.version)))
        seen = server.version

    relist()
    for step, name, number in steps:
        if step == "put":
            server.put(name, number)
        elif step == "delete":
            server.delete(name)
        elif step == "list":
            relist()
        elif step == "bookmark":
            mirror.event("BOOKMARK", {"metadata": {"resourceVersion": str(seen)}})
        else:
            see(number)
    see(1_000)
    assert mirror.things == {name: read(document) for name, document in server.objects.items()}
    ends = [change.last.uid for change in told if change.now is None]
    assert len(ends) == len(set(ends))
    begun = {change.last.uid for change in told if change.before is None and change.now is not None}
    assert begun == set(ends) | {thing.uid for thing in mirror.things.values()}


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50), st.floats(0, 100))
def test_no_delay_is_shorter_than_asked_or_longer_than_bearable(chances: list[float], asked: float) -> None:
    pacing = Pacing(iter(chances * 2).__next__)
    for _ in range(len(chances) // 2):
        delay = pacing.after(ThrottledError("busy", retry_after_seconds=asked))
        assert min(asked, watching.THROTTLED_SECONDS_MAX) <= delay <= watching.THROTTLED_SECONDS_MAX * 1.25 + 1


def test_delays_grow_until_something_comes() -> None:
    pacing = Pacing(lambda: 1.0)
    delays = [pacing.after(UnavailableError("away")) for _ in range(10)]
    assert delays == sorted(delays)
    assert delays[-1] == watching.DELAY_SECONDS_MAX
    assert pacing.after(GoneError("too old")) == delays[0]  # it answers again
    assert pacing.after(GoneError("too old")) > delays[0]
    pacing.succeeded()
    assert pacing.after(UnavailableError("away")) == delays[0]


class Script:
    """A source that does what the test says, step by step; its last watch stays."""

    def __init__(self, pages: list[Any], watches: list[Any]) -> None:
        self.pages, self.watches = pages, watches
        self.asked: list[str] = []

    async def page(self, limit: int, token: str | None) -> tuple[Sequence[Document], str, str | None]:
        self.asked.append(f"list {token}")
        step = self.pages.pop(0)
        if isinstance(step, Exception):
            raise step
        found: tuple[Sequence[Document], str, str | None] = step
        return found

    async def changes(self, version: str, seconds: float) -> AsyncGenerator[WatchEvent, None]:
        self.asked.append(f"watch {version}")
        for step in self.watches.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step
        if not self.watches:
            await asyncio.Event().wait()


def thing(name: str, version: int) -> Document:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}, "state": version}


async def test_a_watch_goes_on_where_it_was_and_lists_only_when_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "DELAY_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(watching, "DELAY_SECONDS_MAX", 0.001)
    source = Script(
        pages=[
            UnavailableError("away"),
            ([thing("a", 1)], "5", "more"),
            ([thing("b", 2)], "5", None),
            ([thing("b", 2)], "9", None),
        ],
        watches=[
            [WatchEvent("MODIFIED", thing("a", 6)), WatchEvent("BOOKMARK", thing("", 7)), UnavailableError("broken")],
            [ThrottledError("busy", retry_after_seconds=0.0)],
            [],
            [GoneError("too old")],
            [WatchEvent("DELETED", thing("b", 10))],
        ],
    )
    told: list[Change[Thing]] = []
    watch = Watch(source, Mirror(read, read), told.append, "things")
    running = asyncio.create_task(watch.run())
    await until(lambda: not watch.mirror.things and told, 10)
    await end_all([running])
    assert source.asked == [
        "list None", "list None", "list more", "watch 5", "watch 7", "watch 7", "watch 7", "list None", "watch 9",
    ]  # fmt: skip
    assert [(change.last.uid, change.now is None) for change in told] == [
        ("a", False), ("b", False), ("a", False), ("a", True), ("b", True),
    ]  # fmt: skip


async def test_half_a_list_deletes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "OBJECTS_MAX", 1)
    source = Script([([thing("a", 1)], "5", "more"), ([thing("b", 1)], "5", "more")], [])
    watch = Watch(source, Mirror(read, read), lambda change: pytest.fail("told of half a list"), "things")
    running = asyncio.create_task(watch.run())
    await until(lambda: watch.breaks == 1, 10)
    await end_all([running])
    assert not watch.synced
