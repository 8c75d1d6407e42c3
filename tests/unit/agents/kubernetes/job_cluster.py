"""A cluster in memory for hooks' Jobs: one that does at once, or never, what a test says."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from engine.agents.kubernetes.client import PODS, Document, Kind, Listing, ObjectExistsError
from engine.errors import EngineError, NotFoundError


class JobCluster:
    """`happens(job)` is asked at each look for pods, and answers the pods of that Job."""

    def __init__(self, happens: Callable[[Document], list[Document]] = lambda job: []) -> None:
        self.happens = happens
        self.objects: dict[tuple[str, str], Document] = {}
        self.asked: list[tuple[str, str]] = []
        self.errors: dict[tuple[str, str], list[EngineError]] = {}
        """What calls raise, in order, by verb and kind."""
        self.log = b"printed"
        self.removed: list[str] = []
        self.called: defaultdict[tuple[str, str], asyncio.Event] = defaultdict(asyncio.Event)

    @property
    def jobs(self) -> list[Document]:
        return [found for (plural, _), found in self.objects.items() if plural == "jobs"]

    def _called(self, verb: str, kind: Kind) -> None:
        self.asked.append((verb, kind.plural))
        self.called[verb, kind.plural].set()
        if waiting := self.errors.get((verb, kind.plural)):
            raise waiting.pop(0)

    async def create(self, kind: Kind, namespace: str | None, document: Document) -> Document:
        self._called("create", kind)
        key = (kind.plural, document["metadata"]["name"])
        if key in self.objects:
            raise ObjectExistsError("there is one")
        made: Document = {**document, "metadata": {**document["metadata"], "uid": f"uid-{len(self.asked)}"}}
        self.objects[key] = made
        return made

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Document:
        self._called("get", kind)
        if (kind.plural, name) not in self.objects:
            raise NotFoundError("gone")
        return self.objects[kind.plural, name]

    async def list(self, kind: Kind, namespace: str | None, *, selector: str = "") -> Listing:
        self._called("list", kind)
        assert kind is PODS
        uid = selector.partition("=")[2]
        job = next((job for job in self.jobs if job["metadata"]["uid"] == uid), None)
        return Listing([] if job is None or job["spec"]["suspend"] else self.happens(job), "1")

    async def patch(self, kind: Kind, namespace: str | None, name: str, change: Document) -> Document:
        self._called("patch", kind)
        found = self.objects[kind.plural, name]
        found["spec"] = {**found["spec"], **change["spec"]}
        return found

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        self._called("delete", kind)
        self.removed.append(name)
        self.objects.pop((kind.plural, name), None)

    async def log_head(self, namespace: str, pod: str, container: str, limit_bytes: int) -> bytes:
        self._called("log", PODS)
        return self.log[:limit_bytes]


def pod_of(phase: str, state: dict[str, Any] | None = None, **status: Any) -> Document:
    statuses = [] if state is None else [{"name": "hook", "state": state}]
    return {
        "metadata": {"name": "hook-x-abcde", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }


def ended_pod(exit_code: int, why: str = "", **status: Any) -> Document:
    phase = "Failed" if exit_code else "Succeeded"
    return pod_of(phase, {"terminated": {"exitCode": exit_code, "reason": why}}, **status)
