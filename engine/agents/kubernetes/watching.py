"""One watch: a list once, and from then on every change, through all that breaks a watch.

A watch ends all the time: by its own limit, because a server restarts, because a proxy closes it, because the server
has forgotten the version from which it is to go on (410), because the server is busy (429). It goes on from the last
version seen, bookmarks included, and lists anew only where it must. After a new list, what is missing in it was deleted
meanwhile, and is told as such: nobody who listens ever misses a deletion. `Mirror` and `Pacing` decide, without time
and network; `Watch` connects them with both.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from engine.agents.kubernetes.client import GoneError, Kind, KubernetesApi, ThrottledError, WatchEvent
from engine.errors import EngineError, UnavailableError
from engine.observability.log import get_logger

log = get_logger(__name__)

Document = Mapping[str, Any]


class Named(Protocol):
    """What a mirror holds: under one name, things of different uids follow each other."""

    @property
    def uid(self) -> str: ...


Thing = TypeVar("Thing", bound=Named)

PAGE_SIZE: Final = 500
WATCH_SECONDS: Final = (240.0, 360.0)
"""How long the server is asked to keep a watch: spread, so that many do not begin anew at the same moment."""

DELAY_FIRST_SECONDS: Final = 0.1
DELAY_SECONDS_MAX: Final = 2.0
THROTTLED_SECONDS_MAX: Final = 30.0
"""Whatever the server asks for: losses of pods must not stay unseen for long."""

TOO_SHORT_SECONDS: Final = 1.0
"""A watch that ends sooner counts as a failure: else a server that ends each at once would be asked without a pause."""

OBJECTS_MAX: Final = 50_000


class ChangeSource(Protocol):
    """One resource in one place, chosen by labels. Both raise GoneError, ThrottledError and UnavailableError."""

    async def page(self, limit: int, token: str | None) -> tuple[Sequence[Document], str, str | None]:
        """Objects, the list's version, and the token of the next page."""
        ...

    def changes(self, version: str, seconds: float) -> AsyncGenerator[WatchEvent, None]:
        """What happens after that version; ends when the server ends it."""
        ...


class ApiSource:
    """A ChangeSource at the real API."""

    def __init__(self, api: KubernetesApi, kind: Kind, namespace: str | None, selector: str) -> None:
        self._api = api
        self._kind = kind
        self._namespace = namespace
        self._selector = selector

    async def page(self, limit: int, token: str | None) -> tuple[Sequence[Document], str, str | None]:
        query = {"labelSelector": self._selector, "limit": str(limit), "continue": token or ""}
        answer = await self._api.request("GET", self._kind, self._kind.path(self._namespace), query=query)
        metadata = answer["metadata"]
        return answer.get("items") or (), metadata["resourceVersion"], metadata.get("continue") or None

    async def changes(self, version: str, seconds: float) -> AsyncGenerator[WatchEvent, None]:
        events = self._api.watch(
            self._kind, self._namespace, version, selector=self._selector, server_seconds=int(seconds)
        )
        async for event in events:
            yield event


@dataclass(frozen=True, slots=True)
class Change(Generic[Thing]):
    """`now` is None for what is gone; `last` is then its last state where the server told it, else what was known."""

    before: Thing | None
    now: Thing | None
    last: Thing


class Mirror(Generic[Thing]):
    """What the server has, in short form. Names are unique in its one place."""

    def __init__(self, read: Callable[[Document], Thing], read_gone: Callable[[Document], Thing]) -> None:
        self._read = read
        self._read_gone = read_gone
        self.things: dict[str, Thing] = {}
        self.version: str | None = None
        """From which to watch; None: a list is needed first."""

    def read_page(self, documents: Sequence[Document]) -> dict[str, Thing]:
        return {document["metadata"]["name"]: self._read(document) for document in documents}

    def listed(self, fresh: dict[str, Thing], version: str) -> list[Change[Thing]]:
        """All that is there now; what was there before and is not among it is gone."""
        changes: list[Change[Thing]] = []
        for name, thing in self.things.items():
            if name not in fresh or fresh[name].uid != thing.uid:
                changes.append(Change(thing, None, thing))
        for name, thing in fresh.items():
            before = self.things.get(name)
            if before is not None and before.uid != thing.uid:
                before = None  # its end stands above
            if before != thing:
                changes.append(Change(before, thing, thing))
        self.things = fresh
        self.version = version
        return changes

    def event(self, kind: str, document: Document) -> list[Change[Thing]]:
        """What an event of the watch changes; nothing for a bookmark."""
        metadata: Document = document.get("metadata") or {}
        if metadata.get("resourceVersion"):
            self.version = metadata["resourceVersion"]
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return []
        name = metadata["name"]
        before = self.things.pop(name, None)
        if kind == "DELETED":
            return [Change(before, None, self._read_gone(document))]
        changes: list[Change[Thing]] = []
        now = self.things[name] = self._read(document)
        if before is not None and before.uid != now.uid:
            changes.append(Change(before, None, before))
            before = None
        if before != now:
            changes.append(Change(before, now, now))
        return changes


class Pacing:
    """How long to wait before the next try: longer with each failure in a row, never in step with others."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._failures = 0
        self._forgotten = 0

    def succeeded(self) -> None:
        self._failures = self._forgotten = 0

    def after(self, error: EngineError) -> float:
        if isinstance(error, GoneError):
            # The server answers: what went before is over, and only this itself must not go in circles.
            self._forgotten += 1
            self._failures = 0
            in_a_row = self._forgotten
        else:
            self._failures += 1
            in_a_row = self._failures
        longest: float = min(DELAY_FIRST_SECONDS * 2 ** min(in_a_row - 1, 10), DELAY_SECONDS_MAX)
        delay = longest * (0.5 + self._chance() / 2)
        if isinstance(error, ThrottledError):
            asked: float = min(max(error.retry_after_seconds, 0.0), THROTTLED_SECONDS_MAX)
            # At least what was asked for, and not all who were told the same come back at the same moment.
            delay = max(asked, delay) + self._chance() * max(0.5, asked / 4)
        return delay


class Watch(Generic[Thing]):
    """Runs one watch until it is cancelled. `tell` is called with each change, in order, and must not wait."""

    def __init__(
        self, source: ChangeSource, mirror: Mirror[Thing], tell: Callable[[Change[Thing]], None], name: str
    ) -> None:
        self._source = source
        self._tell = tell
        self._name = name
        self._pacing = Pacing()
        self.mirror = mirror
        self.synced = False
        """False while it is broken, or has not begun: what is known may be old then."""
        self.lists = 0
        self.breaks = 0

    async def run(self) -> None:
        while True:
            try:
                if self.mirror.version is None:
                    await self._list()
                began = time.monotonic()
                await self._follow()
                if time.monotonic() - began < TOO_SHORT_SECONDS:
                    raise UnavailableError("the server ended the watch at once")
            except GoneError as error:
                self.mirror.version = None
                await self._rest(error)
            except EngineError as error:
                await self._rest(error)

    async def _rest(self, error: EngineError) -> None:
        self.synced = False
        self.breaks += 1
        delay = self._pacing.after(error)
        log.info("kubernetes.watch_broken", watch=self._name, error=str(error), again_in_seconds=round(delay, 2))
        await asyncio.sleep(delay)

    async def _list(self) -> None:
        found: dict[str, Thing] = {}
        token: str | None = None
        while True:
            documents, version, token = await self._source.page(PAGE_SIZE, token)
            found.update(self.mirror.read_page(documents))
            if token is None:
                break
            if len(found) >= OBJECTS_MAX:  # half a list would look as if the rest were deleted
                raise UnavailableError(f"{self._name}: more than {OBJECTS_MAX} objects")
        self.lists += 1
        for change in self.mirror.listed(found, version):
            self._tell(change)

    async def _follow(self) -> None:
        version = self.mirror.version or ""
        seconds = random.uniform(*WATCH_SECONDS)  # noqa: S311 - no secret
        self.synced = True
        async with aclosing(self._source.changes(version, seconds)) as events:
            async for event in events:
                self._pacing.succeeded()
                for change in self.mirror.event(event.type, event.object):
                    self._tell(change)
