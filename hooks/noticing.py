"""Which asynchronous hooks a tick's events set off: found before the tick is committed, journalled with it."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.hooks import PRIORITY_DEFAULT, HookEntry, HookMode, HookRule
from engine.contracts.kernel import TickProposal
from engine.hook_ports import HookQueue
from hooks.directory import HookDirectory
from hooks.subjects import Occasion, occasion_of

NAMES_MAX: Final = 10_000
URGENT_BELOW: Final = PRIORITY_DEFAULT // 2
LATE_FROM: Final = PRIORITY_DEFAULT + PRIORITY_DEFAULT // 2


class WorkflowNames(Protocol):
    async def workflow_name(self, tenant: str, workflow_id: UUID) -> str:
        """Empty when there is none."""
        ...


def band_of(priority: int) -> int:
    """Which queue: 0 below 50, 1 below 150, 2 above."""
    return 0 if priority < URGENT_BELOW else 1 if priority < LATE_FROM else 2


class HookNotice:
    """One a process. Where a tenant has no hooks, a tick costs it one look into a dictionary."""

    def __init__(self, directory: HookDirectory, names: WorkflowNames, queue: HookQueue) -> None:
        self._directory = directory
        self._names = names
        self._queue = queue
        self._known_names: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def notice(self, proposal: TickProposal) -> TickProposal:
        """The proposal with what its events ask of hooks. Raises UnavailableError when the hooks are not known."""
        if not proposal.audit or self._directory.has_none(proposal.tenant):
            return proposal
        index = await self._directory.index(proposal.tenant)
        if not index.has_mode(HookMode.ASYNCHRONOUS):
            return proposal
        audit: list[AuditEvent] = []
        entries: list[HookEntry] = []
        for event in proposal.audit:
            audit.append(event)
            occasion = occasion_of(event)
            if occasion is None or not index.has(occasion.trigger, HookMode.ASYNCHRONOUS):
                continue
            name = await self._workflow_name(proposal)
            subject = occasion.subject(name)
            rules = index.matching(occasion.trigger, HookMode.ASYNCHRONOUS, subject)
            if rules:
                entry = _entry(proposal, event, occasion, subject, name, len(entries), rules)
                entries.append(entry)
                audit += [_triggered(event, entry, rule) for rule in rules]
        if not entries:
            return proposal
        return proposal.model_copy(update={"audit": tuple(audit), "hook_entries": tuple(entries)})

    async def queue(self, proposal: TickProposal) -> None:
        """After the commit. Losing it is allowed: what is journalled and not queued is found."""
        if proposal.hook_entries:
            await self._queue.put(proposal.tenant, proposal.hook_entries)

    async def _workflow_name(self, proposal: TickProposal) -> str:
        key = (proposal.tenant, proposal.workflow_id)
        name = self._known_names.get(key)
        if name is None:
            name = await self._names.workflow_name(proposal.tenant, UUID(proposal.workflow_id))
            self._known_names[key] = name
            while len(self._known_names) > NAMES_MAX:
                self._known_names.popitem(last=False)
        return name


def _entry(
    proposal: TickProposal,
    event: AuditEvent,
    occasion: Occasion,
    subject: str,
    name: str,
    position: int,
    rules: Sequence[HookRule],
) -> HookEntry:
    return HookEntry(
        execution_id=proposal.execution_id,
        workflow_id=proposal.workflow_id,
        workflow_name=name,
        tick=proposal.tick,
        position=position,
        trigger=occasion.trigger,
        event_type=occasion.event_type,
        subject=subject,
        band=band_of(rules[0].priority),
        hooks=tuple(rule.hook_id for rule in rules),
        payload=event.payload,
        trace_id=proposal.trace_id,
        at_ms=event.at_ms,
    )


def _triggered(event: AuditEvent, entry: HookEntry, rule: HookRule) -> AuditEvent:
    payload: dict[str, Any] = {
        "hook_id": str(rule.hook_id),
        "hook_name": rule.name,
        "trigger": entry.trigger.value,
        "event_matched": entry.event_type,
        "subject": entry.subject,
    }
    payload |= {name: event.payload[name] for name in ("task_id", "agent_id", "attempt") if name in event.payload}
    return AuditEvent.trusted(type=AuditEventType.HOOK_TRIGGERED, at_ms=event.at_ms, payload=payload)
