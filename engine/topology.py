"""Who is linked with whom among n agents: full, ring, star, tree, k nearest, or as given.

Pure. Links are computed when they are asked for: a full network of 10,000 has a hundred million of them.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from engine.contracts.topology import TopologyConfig


class Topology:
    """Links among `members`, by position. A link leads from a member to one that it reaches (or sees)."""

    def __init__(self, config: TopologyConfig, members: Sequence[str]) -> None:
        self._config = config
        self.members = tuple(members)
        self._at: Mapping[str, int] = {name: n for n, name in enumerate(self.members)}
        self._given: dict[int, tuple[int, ...]] = {}
        for name, reached in config.links.items():
            if name in self._at:
                known = sorted({self._at[other] for other in reached if other in self._at and other != name})
                self._given[self._at[name]] = tuple(known)

    def __len__(self) -> int:
        return len(self.members)

    def position(self, name: str) -> int | None:
        return self._at.get(name)

    def of(self, at: int) -> tuple[int, ...]:
        """The positions that `at` has links to, ascending; never itself."""
        size = len(self.members)
        match self._config.kind:
            case "full":
                found: set[int] = set(range(size))
            case "ring":
                found = {(at - 1) % size, (at + 1) % size}
            case "star":
                found = {0} if at else set(range(size))
            case "tree":
                arity = self._config.arity
                first = at * arity + 1
                found = set(range(first, min(first + arity, size)))
                if at:
                    found.add((at - 1) // arity)
            case "neighbours":
                found = {(at + step) % size for step in _nearest(min(self._config.k, size - 1))}
            case _:
                return self._given.get(at, ())
        found.discard(at)
        return tuple(sorted(found))

    def linked(self, at: int, other: int) -> bool:
        if at == other:
            return False
        if self._config.kind == "full":
            return True
        return other in self.of(at)

    def within(self, at: int, hops: int) -> dict[int, int]:
        """Everyone that `at` reaches in at most so many hops, with the number of hops, nearest first."""
        if hops < 1:
            return {}
        if self._config.kind == "full":
            return dict.fromkeys(self.of(at), 1)
        found = {at: 0}
        pending = deque([at])
        while pending:
            here = pending.popleft()
            if found[here] == hops:
                break
            for other in self.of(here):
                if other not in found:
                    found[other] = found[here] + 1
                    pending.append(other)
        del found[at]
        return found

    def unreached(self, starts: Sequence[int]) -> list[int]:
        """Who cannot be reached from any of these, however far."""
        seen: set[int] = set(starts)
        if self._config.kind == "full" and seen:
            return []
        pending = list(starts)
        while pending:
            for other in self.of(pending.pop()):
                if other not in seen:
                    seen.add(other)
                    pending.append(other)
        return [at for at in range(len(self.members)) if at not in seen]


def _nearest(k: int) -> Iterator[int]:
    """+1, -1, +2, -2, ... so many."""
    for n in range(k):
        step = n // 2 + 1
        yield -step if n % 2 else step
