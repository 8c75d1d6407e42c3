"""Checks a definition of the handoff pattern against its settings: names, expressions, schemas, the first context."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.handoff import Gate, HandoffConfig, Station
from engine.expressions import ExpressionError, names_of, parse
from engine.json_schemas import CompiledSchema, InvalidSchemaError
from planner.patterns.finding import Finding
from planner.patterns.peers import NOT_IN_PATTERN, UNKNOWN_AGENT, agents_of, check_tasks_named
from planner.problems import Location

GATE_NAMES: Final = ("context", "result")
UNKNOWN_ROLE: Final = "UNKNOWN_ROLE"


def check(definition: WorkflowDefinition, config: HandoffConfig) -> Iterable[Finding]:
    """What is wrong with this definition under these settings."""
    yield from check_tasks_named(definition, "stations", config.stations)
    for position, task in enumerate(definition.tasks):
        for field, given in (("for_each", task.for_each is not None), ("reuse", task.reuse)):
            if given:
                message = "is not taken: a task is handed from one agent to the next here"
                yield Finding(NOT_IN_PATTERN, ("tasks", position, field), message)
    size_bytes = len(json.dumps(config.context, ensure_ascii=False).encode("utf-8", "replace"))
    if size_bytes > config.context_bytes_max:
        message = f"has {size_bytes} bytes; context_bytes_max is {config.context_bytes_max}"
        yield Finding("TOO_LARGE", ("pattern_config", "context"), message)
    yield from _check_station(definition, config, frozenset(Station.model_fields), ("pattern_config",))
    for name, own in config.stations.items():
        yield from _check_station(definition, config.station(name), own, ("pattern_config", "stations", name))


def _check_station(
    definition: WorkflowDefinition, station: Station, given: Iterable[str], location: Location
) -> Iterator[Finding]:
    if "to" in given:
        known = agents_of(definition, definition.agents) | set(definition.agents)
        for number, name in enumerate(station.to):
            if name not in known:
                yield Finding(UNKNOWN_AGENT, (*location, "to", number), f"there is no role and no agent {name}")
    if "gate" in given:
        yield from _check_gate(definition, station.gate, (*location, "gate"))


def _check_gate(definition: WorkflowDefinition, gate: Gate, location: Location) -> Iterator[Finding]:
    for number, text in enumerate(gate.expressions):
        where = (*location, "expressions", number)
        try:
            used = names_of(parse(text))
        except ExpressionError as error:
            yield Finding(error.code, where, error.message)
            continue
        for name in sorted({root for root, _ in used} - set(GATE_NAMES)):
            message = f"there is no {name} here; there are {', '.join(GATE_NAMES)}"
            yield Finding("EXPRESSION_UNKNOWN_NAME", where, message)
    if gate.json_schema is not None:
        yield from _check_schema(gate.json_schema, (*location, "json_schema"))
    if gate.judge is not None and gate.judge.agent not in definition.agents:
        message = f"the definition has no role {gate.judge.agent}"
        yield Finding(UNKNOWN_ROLE, (*location, "judge", "agent"), message)


def _check_schema(schema: dict[str, Any] | bool, location: Location) -> Iterator[Finding]:
    try:
        CompiledSchema(schema)
    except InvalidSchemaError as error:
        yield Finding("INVALID_SCHEMA", (*location, *error.data["path"]), error.message)
