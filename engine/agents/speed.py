"""How fast hosts work, measured against others that do the same kind of work at the same time.

A duration by itself says nothing: tasks differ. So a worker compares the hosts that serve one role of one execution:
the median of a host's durations with the median host's. A host that has nobody to be compared with has no speed. Only
being slower counts: where most hosts are slow, that is the speed of the type.
"""

import asyncio
import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from statistics import median, median_low
from typing import Final

from engine.errors import EngineError
from engine.health_ports import HostHealthStore, Measured
from engine.observability.log import get_logger

log = get_logger(__name__)

WRITE_SECONDS: Final = 5.0

SAMPLES_MAX: Final = 50
"""Of one host in one role of one execution: the newest."""

SAMPLES_MIN: Final = 5
"""With fewer, a host is not judged, and nobody is judged by it."""

GROUPS_MAX: Final = 2_000
DURATION_MS_MIN: Final = 5.0
"""Below this, durations are mostly the clock's own coarseness."""

SPEED_MIN: Final = 0.01
CLASS_MIN: Final = 0.125
CLASS_CHANGES_AT: Final = 0.75
"""How far, in powers of two, a measured speed must be from the present class: it must not waver between two."""

Role = tuple[str, str, str]
"""Tenant, execution and role."""


class SpeedBook:
    """What one worker process sees of hosts."""

    def __init__(self) -> None:
        self._roles: OrderedDict[Role, dict[str, deque[float]]] = OrderedDict()
        self._news: dict[tuple[str, str], int] = {}
        """Tasks of each host since it was last asked."""

    def note(self, tenant: str, execution_id: str, role: str, host_id: str, duration_ms: float) -> None:
        key = (tenant, execution_id, role)
        hosts = self._roles.get(key)
        if hosts is None:
            hosts = self._roles[key] = {}
            if len(self._roles) > GROUPS_MAX:
                self._roles.popitem(last=False)
        samples = hosts.get(host_id)
        if samples is None:
            samples = hosts[host_id] = deque(maxlen=SAMPLES_MAX)
        samples.append(duration_ms)
        self._news[tenant, host_id] = self._news.get((tenant, host_id), 0) + 1

    def take(self) -> Mapping[str, Mapping[str, Measured]]:
        """By tenant and host: of those that have done something since the last time and can be compared."""
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for (tenant, _, _), hosts in self._roles.items():
            if any((tenant, host_id) in self._news for host_id in hosts):
                for host_id, speed in _compared(hosts).items():
                    found[tenant][host_id].append(speed)
        news, self._news = self._news, {}
        return {
            tenant: {
                host_id: Measured(median(speeds), news[tenant, host_id])
                for host_id, speeds in hosts.items()
                if (tenant, host_id) in news
            }
            for tenant, hosts in found.items()
        }


class SpeedRecorder:
    """Writes what a worker's book holds, for the registry to judge. What an outage loses is measured again."""

    def __init__(self, book: SpeedBook, store: HostHealthStore) -> None:
        self._book = book
        self._store = store

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.write()
            except EngineError as error:
                log.warning("speeds.not_written", error=str(error))

    async def write(self) -> None:
        """Raises EngineError."""
        for tenant, measured in self._book.take().items():
            await self._store.note_measured(tenant, measured)


def speed_class(measured: float, present: float) -> float:
    """1.0, 0.5, 0.25 or 0.125: executions are told of a change, so it must be a real one."""
    if abs(math.log2(measured) - math.log2(present)) < CLASS_CHANGES_AT:
        return present
    return float(min(max(2.0 ** round(math.log2(measured)), CLASS_MIN), 1.0))


def _compared(hosts: Mapping[str, deque[float]]) -> dict[str, float]:
    medians = {host_id: median(samples) for host_id, samples in hosts.items() if len(samples) >= SAMPLES_MIN}
    if len(medians) < 2:
        return {}
    usual = median_low(medians.values())
    if usual < DURATION_MS_MIN:
        return {}
    return {host_id: min(max(usual / own, SPEED_MIN), 1.0) for host_id, own in medians.items()}
