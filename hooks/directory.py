"""Each tenant's hooks in memory, compiled; asked for again when a nudge says so, or when they are a few seconds old."""

import asyncio
import time
from collections import OrderedDict
from typing import Final

from engine.contracts.hooks import HookMode
from engine.errors import EngineError
from engine.hook_ports import HookRules, HookSwitch
from engine.observability.log import get_logger
from hooks.matching import HookIndex

log = get_logger(__name__)

FRESH_SECONDS: Final = 3.0
"""How long a change may go unnoticed where its nudge got lost."""
TENANTS_MAX: Final = 1_000
COMPILED_IN_PLACE_MAX: Final = 200
"""More hooks are compiled in a thread: a thousand take some ten milliseconds."""


class _Known:
    __slots__ = ("fresh_until", "index", "switch")

    def __init__(self, switch: HookSwitch, index: HookIndex) -> None:
        self.switch = switch
        self.index = index
        self.fresh_until = 0.0


_NOTHING: Final = HookIndex()


class HookDirectory:
    """One a process. `enabled` is the operator's switch, for all tenants."""

    def __init__(self, store: HookRules, *, enabled: bool) -> None:
        self._store = store
        self._enabled = enabled
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self._nudges = 0

    def forget(self, tenant: str | None = None) -> None:
        """They may have changed: ask before the next use. None: everybody's, after nudges may have been lost."""
        self._nudges += 1
        for known in self._known.values() if tenant is None else filter(None, [self._known.get(tenant)]):
            known.fresh_until = 0.0

    def has_none(self, tenant: str) -> bool:
        """True when it is known, without asking, that the tenant has no hooks: the usual case, and free."""
        known = self._known.get(tenant)
        if not self._enabled:
            return True
        return known is not None and not known.index and time.monotonic() < known.fresh_until

    async def index(self, tenant: str) -> HookIndex:
        """Raises UnavailableError when the tenant's hooks are not known and cannot be asked for."""
        if not self._enabled:
            return _NOTHING
        known = self._known.get(tenant)
        if known is not None and time.monotonic() < known.fresh_until:
            return known.index
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            known = self._known.get(tenant)
            if known is None or time.monotonic() >= known.fresh_until:
                known = await self._refresh(tenant, known)
        self._locks.pop(tenant, None)
        return known.index

    async def blocking(self, tenant: str) -> HookIndex | None:
        """None when nothing of the tenant's is blocking."""
        index = await self.index(tenant)
        return index if index.has_mode(HookMode.BLOCKING) else None

    async def _refresh(self, tenant: str, known: _Known | None) -> _Known:
        asked_at, nudges = time.monotonic(), self._nudges
        try:
            if known is None or (await self._store.switch(tenant)) != known.switch:
                known = await self._load(tenant)
        except EngineError as error:
            if known is None:
                raise
            # What was true a moment ago is better than a tick that does not commit.
            log.warning("hooks.stale", tenant=tenant, error=str(error))
        # What was heard of meanwhile may not be in the answer.
        known.fresh_until = asked_at + FRESH_SECONDS if nudges == self._nudges else 0.0
        self._known[tenant] = known
        self._known.move_to_end(tenant)
        while len(self._known) > TENANTS_MAX:
            self._known.popitem(last=False)
        return known

    async def _load(self, tenant: str) -> _Known:
        switch, rules = await self._store.rules(tenant)
        if not switch.enabled or not rules:
            return _Known(switch, _NOTHING)
        if len(rules) <= COMPILED_IN_PLACE_MAX:
            return _Known(switch, HookIndex(rules))
        return _Known(switch, await asyncio.to_thread(HookIndex, rules))
