"""Checks a definition of the hierarchical pattern: that its teams are one tree, everybody has a place, nobody leads
more than it can, and no task asks of a role what that may not do."""

from collections.abc import Iterable, Iterator
from typing import Final

from engine.contracts.definition import TaskDefinition, WorkflowDefinition
from engine.contracts.patterns.hierarchical import LEVELS_MAX, HierarchicalConfig
from engine.hierarchy import NOT_AUTHORISED, Hierarchy, resources_of
from planner.patterns.finding import Finding
from planner.problems import Location, quoted

UNKNOWN_MEMBER: Final = "UNKNOWN_MEMBER"
NOT_A_TREE: Final = "NOT_A_TREE"
NAMES_SHOWN_MAX: Final = 5
TEAMS: Final[Location] = ("pattern_config", "teams")


def check(definition: WorkflowDefinition, config: HierarchicalConfig) -> Iterable[Finding]:
    """What is wrong with this definition under these settings."""
    hierarchy = Hierarchy(config)
    broken = [*_check_names(definition, config), *_check_tree(hierarchy)]
    yield from broken
    yield from _check_authority_names(definition, hierarchy, whole=not broken)
    if broken:
        return  # what follows needs everybody's place
    if config.teams:
        yield from _check_places(definition, hierarchy)
        yield from _check_span(definition, hierarchy)
    for position, task in enumerate(definition.tasks):
        yield from _check_task(hierarchy, position, task)


def _check_names(definition: WorkflowDefinition, config: HierarchicalConfig) -> Iterator[Finding]:
    for name, team in config.teams.items():
        if team.lead not in definition.agents:
            yield Finding(UNKNOWN_MEMBER, (*TEAMS, name, "lead"), f"there is no role {quoted(team.lead)} in agents")
        for number, member in enumerate(team.members):
            where = (*TEAMS, name, "members", number)
            if member in definition.agents and member in config.teams:
                message = f"{quoted(member)} is both a role and a team: rename one of them"
                yield Finding("AMBIGUOUS_MEMBER", where, message)
            elif member not in definition.agents and member not in config.teams:
                yield Finding(UNKNOWN_MEMBER, where, f"there is no role and no team {quoted(member)}")


def _check_tree(hierarchy: Hierarchy) -> Iterator[Finding]:
    """One top, one place for each, no circles."""
    leads: dict[str, str] = {}
    places: dict[str, str] = {}
    for name, team in hierarchy.teams.items():
        if team.lead in leads:
            message = f"{quoted(team.lead)} leads {leads[team.lead]} already: a role leads one team"
            yield Finding(NOT_A_TREE, (*TEAMS, name, "lead"), message)
        leads.setdefault(team.lead, name)
    for name, team in hierarchy.teams.items():
        for number, member in enumerate(team.members):
            where = (*TEAMS, name, "members", number)
            if member in leads and member not in hierarchy.teams:
                message = f"{quoted(member)} leads the team {leads[member]}: name that team as the member"
                yield Finding(NOT_A_TREE, where, message)
            elif member in places:
                yield Finding(NOT_A_TREE, where, f"{quoted(member)} is a member of {places[member]} already")
            places.setdefault(member, name)
    yield from _check_one_top(hierarchy)


def _check_one_top(hierarchy: Hierarchy) -> Iterator[Finding]:
    if len(hierarchy.tops) > 1:
        message = f"{_shown(hierarchy.tops)} are no other team's members: only the top team is none's"
        yield Finding(NOT_A_TREE, (*TEAMS, hierarchy.tops[1]), message)
    astray = [name for name in hierarchy.teams if not _reaches_top(hierarchy, name)]
    if astray:
        message = f"{_shown(astray)} are members of each other, and of no team that the top leads to"
        yield Finding(NOT_A_TREE, (*TEAMS, astray[0]), message)
    elif hierarchy.depth > LEVELS_MAX:
        yield Finding("TOO_DEEP", TEAMS, f"make {hierarchy.depth} levels; at most {LEVELS_MAX} are taken")


def _reaches_top(hierarchy: Hierarchy, name: str) -> bool:
    seen: set[str] = set()
    at: str | None = name
    while at is not None and at not in seen:
        seen.add(at)
        at = hierarchy.parent.get(at)
    return at is None


def _check_places(definition: WorkflowDefinition, hierarchy: Hierarchy) -> Iterator[Finding]:
    for role in definition.agents:
        if hierarchy.team_of(role) is None:
            message = "neither leads a team nor is a member of one: add it to a team's members"
            yield Finding("ROLE_WITHOUT_TEAM", ("agents", role), message)


def _check_span(definition: WorkflowDefinition, hierarchy: Hierarchy) -> Iterator[Finding]:
    for name in hierarchy.teams:
        limit = hierarchy.reports_max(name)
        count = sum(definition.agents[role].count for role in hierarchy.reports(name))
        if limit is not None and count > limit:
            message = f"{count} agents report to {hierarchy.teams[name].lead}; its span of control is {limit}"
            yield Finding("SPAN_OF_CONTROL", (*TEAMS, name, "members"), message)


def _check_authority_names(definition: WorkflowDefinition, hierarchy: Hierarchy, *, whole: bool) -> Iterator[Finding]:
    authority = hierarchy.config.authority
    for role in authority.roles:
        if role not in definition.agents:
            where = ("pattern_config", "authority", "roles", role)
            yield Finding("UNKNOWN_ROLE", where, f"there is no role {quoted(role)} in agents")
    known = {f"L{level}" for level in hierarchy.levels.values()}
    for level in authority.levels:
        if whole and level not in known:
            where = ("pattern_config", "authority", "levels", level)
            message = (
                f"there is no level {level}; there are L1 to L{hierarchy.depth}" if known else "there are no teams"
            )
            yield Finding("UNKNOWN_LEVEL", where, message)


def _check_task(hierarchy: Hierarchy, position: int, task: TaskDefinition) -> Iterator[Finding]:
    resources = resources_of(task.input)
    if resources is None:
        if _limits_resources(hierarchy):
            message = "is a list of names here: of what the task uses, which authority limits"
            yield Finding("INVALID_TYPE", ("tasks", position, "input", "resources"), message)
        resources = ()
    for name, field in ((task.action or task.id, "action"), (task.compensation_action, "compensation_action")):
        refusal = None if name is None else hierarchy.refusal(task.agent, name, ())
        if refusal is not None:
            yield Finding(NOT_AUTHORISED, ("tasks", position, field), refusal)
    for number, resource in enumerate(resources):
        refusal = hierarchy.resource_refusal(task.agent, resource)
        if refusal is not None:
            yield Finding(NOT_AUTHORISED, ("tasks", position, "input", "resources", number), refusal)


def _limits_resources(hierarchy: Hierarchy) -> bool:
    authority = hierarchy.config.authority
    return any(entry.resources is not None for entry in (*authority.levels.values(), *authority.roles.values()))


def _shown(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMES_SHOWN_MAX} more" if len(listed) > NAMES_SHOWN_MAX else ""
    return ", ".join(listed[:NAMES_SHOWN_MAX]) + more
