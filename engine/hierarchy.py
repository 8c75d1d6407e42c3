"""Who leads whom, on which level, and what each may do. Pure; made from valid settings.

What is not a tree (`planner.patterns.hierarchical` refuses it) makes no sense here, but does no harm: every walk ends.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.contracts.patterns.hierarchical import RESOURCES_FIELD, Authority, HierarchicalConfig, Team

NOT_AUTHORISED = "NOT_AUTHORISED"


@dataclass(frozen=True)
class Superior:
    """One who decides about failures below it: a team's lead."""

    team: str
    role: str
    level: int


class Hierarchy:
    """Teams as a tree. Level 1 is the lead of the top team; members are one level below their lead."""

    def __init__(self, config: HierarchicalConfig) -> None:
        self.config = config
        self.teams: Mapping[str, Team] = config.teams
        self.parent: dict[str, str] = {}
        """The team that each team is a member of."""
        self.member_of: dict[str, str] = {}
        """The team that each role is a member of; of leads, that which their team is a member of."""
        self.led_by: dict[str, str] = {}
        """The team that each lead leads."""
        for name, team in config.teams.items():
            self.led_by.setdefault(team.lead, name)
            for member in team.members:
                (self.parent if member in config.teams else self.member_of).setdefault(member, name)
        for name, above in self.parent.items():
            self.member_of.setdefault(config.teams[name].lead, above)
        self.levels = self._levels()

    def _levels(self) -> dict[str, int]:
        """The level of each role that has one. Breadth first from the top."""
        found: dict[str, int] = {}
        reached = [(name, 1) for name in self.tops]
        seen = set(self.tops)
        for name, level in reached:
            team = self.teams[name]
            found.setdefault(team.lead, level)
            for member in team.members:
                if member not in self.teams:
                    found.setdefault(member, level + 1)
                elif member not in seen:
                    seen.add(member)
                    reached.append((member, level + 1))
        return found

    @cached_property
    def tops(self) -> tuple[str, ...]:
        """Teams that are no other's members; a valid hierarchy has one."""
        return tuple(name for name in self.teams if name not in self.parent)

    @property
    def depth(self) -> int:
        return max(self.levels.values(), default=1)

    def team_of(self, role: str) -> str | None:
        """The team that a role's tasks belong to: the one it leads, else the one it is a member of."""
        return self.led_by.get(role) or self.member_of.get(role)

    def superiors(self, role: str) -> tuple[Superior, ...]:
        """Who decides about this role's failures, the nearest first."""
        return self._chains.get(role, ())

    @cached_property
    def _chains(self) -> dict[str, tuple[Superior, ...]]:
        return {role: tuple(self._chain(role)) for role in self.levels}

    def _chain(self, role: str) -> Iterator[Superior]:
        name = self.member_of.get(role)
        seen: set[str] = set()
        while name is not None and name not in seen:
            seen.add(name)
            lead = self.teams[name].lead
            yield Superior(name, lead, self.levels.get(lead, 1))
            name = self.parent.get(name)

    def above(self, role: str) -> tuple[str, ...]:
        """The teams whose leads this role is below."""
        return tuple(superior.team for superior in self.superiors(role))

    def reports(self, team: str) -> tuple[str, ...]:
        """The roles that report to the lead directly."""
        members = self.teams[team].members
        return tuple(self.teams[m].lead if m in self.teams else m for m in members)

    def is_below(self, role: str, team: str) -> bool:
        return any(superior.team == team for superior in self.superiors(role))

    # Limits --------------------------------------------------------------------------------------------------

    def reports_max(self, team: str) -> int | None:
        own = self.teams[team].reports_max
        return self.config.span_of_control.reports_max if own is None else own

    @cached_property
    def in_flight_max(self) -> dict[str, int]:
        """Teams that have a limit of work in flight below their lead."""
        general = self.config.span_of_control.in_flight_max
        limits = {name: general if t.in_flight_max is None else t.in_flight_max for name, t in self.teams.items()}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @cached_property
    def delegated_roles(self) -> frozenset[str]:
        """Roles whose tasks wait for their lead's word."""
        return frozenset(role for role, name in self.member_of.items() if self.teams[name].delegation == "lead")

    # Authority -----------------------------------------------------------------------------------------------

    def refusal(self, role: str, action: str, resources: Iterable[str]) -> str | None:
        """Why a role may not do this; None when it may."""
        for who, authority in self._entries(role):
            if not _covers(authority.actions, action):
                return f"{who} may not {action}; allowed are {_listed(authority.actions)}"
        return next((why for name in resources if (why := self.resource_refusal(role, name))), None)

    def resource_refusal(self, role: str, name: str) -> str | None:
        for who, authority in self._entries(role):
            if not _covers(authority.resources, name):
                return f"{who} may not use {name}; allowed are {_listed(authority.resources)}"
        return None

    def decision_refusal(self, role: str, decision: str) -> str | None:
        """Why a superior may not decide so; None when it may."""
        for who, authority in self._entries(role):
            if authority.decisions is not None and decision not in authority.decisions:
                return f"{who} may not decide to {decision}; allowed are {_listed(authority.decisions)}"
        return None

    def _entries(self, role: str) -> Iterator[tuple[str, Authority]]:
        authority = self.config.authority
        level = self.levels.get(role)
        if level is not None and f"L{level}" in authority.levels:
            yield f"{role} (level L{level})", authority.levels[f"L{level}"]
        if role in authority.roles:
            yield f"the role {role}", authority.roles[role]


def resources_of(task_input: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of what a task with this input uses; None when its field is not a list of names."""
    named = task_input.get(RESOURCES_FIELD, [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return None
    return tuple(named)


def _covers(allowed: Iterable[str] | None, name: str) -> bool:
    if allowed is None:
        return True
    return any(name.startswith(entry[:-1]) if entry.endswith("*") else name == entry for entry in allowed)


def _listed(allowed: Iterable[str] | None) -> str:
    names = sorted(allowed or ())
    shown = ", ".join(names[:10])
    return (shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")) or "none"
