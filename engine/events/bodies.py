"""The bodies of tasks in a graph that has changed: elements of lists, added tasks, tasks that an event set off."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from engine.ports import DispatchStore, GraphStore, TaskAddition

LISTS_BYTES_MAX = 64 * 1024 * 1024
"""Lists of elements kept in memory, as JSON; they are named by their content, so that none is ever outdated."""


class GrownBodies:
    """Puts together what the definition says of a task and what has come since."""

    def __init__(self, store: DispatchStore, graphs: GraphStore) -> None:
        self._store = store
        self._graphs = graphs
        self._lists: OrderedDict[tuple[str, str, str], tuple[int, list[Any]]] = OrderedDict()
        self._held_bytes = 0

    async def of(
        self, tenant: str, execution_id: str, planned: Mapping[str, dict[str, Any]], task_ids: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """By task id, as tasks stand in definitions. Tasks that are no more are left out."""
        additions = await self._graphs.describe(tenant, UUID(execution_id), task_ids)
        found: dict[str, dict[str, Any]] = {}
        for task_id in task_ids:
            addition = additions.get(task_id) or TaskAddition()
            name = task_id if addition.element is None else addition.parent or ""
            body = addition.body or planned.get(name)
            if body is None:
                continue
            if "about" in body:
                body = _alike(body, planned.get(body["about"]) or {})
            if "within" in body:
                known = await self.of(tenant, execution_id, planned, [body["within"]])
                body = _within(body, known.get(body["within"]) or {})
            if "concerning" in body:
                subject = body["concerning"]
                known = await self.of(tenant, execution_id, planned, [subject])
                body = _concerning(body, known.get(subject) or {})
            body = _with_additions(body, addition)
            if addition.element is not None:
                items = await self._items(tenant, execution_id, addition.items_ref)
                if addition.element >= len(items):
                    continue
                body = _element(body, name, addition.element, items[addition.element])
            found[task_id] = body
        return found

    async def _items(self, tenant: str, execution_id: str, reference: str | None) -> list[Any]:
        if reference is None:
            return []
        key = (tenant, execution_id, reference)
        known = self._lists.get(key)
        if known is not None:
            self._lists.move_to_end(key)
            return known[1]
        payload = await self._store.payload(tenant, UUID(execution_id), reference)
        items: list[Any] = orjson.loads(payload)
        self._lists[key] = (len(payload), items)
        self._held_bytes += len(payload)
        while self._held_bytes > LISTS_BYTES_MAX and len(self._lists) > 1:
            _, (size_bytes, _) = self._lists.popitem(last=False)
            self._held_bytes -= size_bytes
        return items


def _alike(body: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """A task that a pattern asked for, with what the task for whose sake it is gets."""
    return {
        **body,
        "depends_on": about.get("depends_on") or [],
        "action": about.get("action") or body.get("action"),
        "input": {**(about.get("input") or {}), **(body.get("input") or {})},
    }


def _within(body: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """As `_alike`, with an action of its own; of elements of lists and added tasks, too."""
    return {
        **body,
        "depends_on": about.get("depends_on") or [],
        "input": {**(about.get("input") or {}), **(body.get("input") or {})},
    }


def _concerning(body: dict[str, Any], subject: dict[str, Any]) -> dict[str, Any]:
    """A task that a pattern asked for, of one who is to judge another: with what that one is, and what it got."""
    told = {
        "id": body["concerning"],
        "role": subject.get("agent"),
        "action": subject.get("action") or body["concerning"],
        "input": subject.get("input") or {},
    }
    return {
        **body,
        "depends_on": subject.get("depends_on") or [],
        "input": {"task": told, **(body.get("input") or {})},
    }


def _with_additions(body: dict[str, Any], addition: TaskAddition) -> dict[str, Any]:
    if addition.waits_for:
        body = {**body, "depends_on": [*body.get("depends_on", ()), *addition.waits_for]}
    if addition.has_event:
        body = {**body, "input": {**(body.get("input") or {}), "event": addition.event}}
    return body


def _element(body: dict[str, Any], group: str, index: int, item: Any) -> dict[str, Any]:
    return {
        **body,
        "action": body.get("action") or group,
        "input": {**(body.get("input") or {}), "item": item, "index": index},
        "element": index,
    }
