"""The language in which patterns are registered: states over what the kernel can do. Page: docs/patterns/custom.md.

A program is data. It runs once for each task that it handles, from the moment when the task's dependencies are done;
what it decides in the end is the task's end. These models check each field on its own; that the whole makes sense
(reachable states, bounded loops, names and types in expressions) is `planner.language`.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from engine.contracts.definition import EventName, Expression, Name, Text, Version
from engine.contracts.limits import ATTEMPTS_MAX, TASK_TIMEOUT_MAX_SECONDS
from engine.contracts.model import Model, StrictModel
from engine.contracts.voting import VotingRule

LOGIC_VERSION: Final = 1
"""Of the language. Rises when a program could do something else than before; the interpreter keeps the older ones."""

STATES_MAX: Final = 100
VARIABLES_MAX: Final = 100
CASES_MAX: Final = 50
LOOP_MAX: Final = 1_000
"""Passes of one loop."""

STEPS_DEFAULT: Final = 1_000
STEPS_MAX: Final = 10_000
"""States that one task's program may enter. Loops inside loops multiply: this is what ends them in a bearable time."""

FAN_OUT_MAX: Final = 1_000
"""Pieces of work that one state may begin."""

WAIT_DEFAULT_SECONDS: Final = 3_600
LOGIC_BYTES_MAX: Final = 64 * 1024
"""A program as JSON: it stands in the argument of each workflow that runs it."""

VALUE_BYTES_MAX: Final = 16 * 1024
"""One variable as JSON."""

VALUES_BYTES_MAX: Final = 64 * 1024
"""All variables of one task."""

STATE_NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,39}$"
VARIABLE_NAME_PATTERN: Final = r"^[a-z][a-zA-Z0-9_]{0,39}$"

StateName = Annotated[str, Field(pattern=STATE_NAME_PATTERN)]
VariableName = Annotated[str, Field(pattern=VARIABLE_NAME_PATTERN)]
WaitSeconds = Annotated[int, Field(ge=1, le=TASK_TIMEOUT_MAX_SECONDS)]


class _Work(StrictModel):
    """Work for an agent: a task of the pattern's own. Each field is an expression."""

    role: Expression | None = Field(None, description="gives the role; the handled task's when absent")
    agent: Expression | None = Field(None, description="gives the id of the one agent; any of the role when absent")
    action: Expression | None = Field(None, description="gives the action's name; the state's name when absent")
    input: Expression | None = Field(None, description="gives an object, the work's input")
    undo: Expression | None = Field(
        None, description="gives the action that undoes it, or null; `compensate` asks the same agent's role for it"
    )
    timeout_seconds: WaitSeconds | None = Field(None, description="of one attempt; the handled task's when absent")
    attempts: int | None = Field(None, ge=1, le=ATTEMPTS_MAX, description="the handled task's when absent")


class Assign(_Work):
    """One agent does something; its result is awaited."""

    do: Literal["assign"]
    own: bool = Field(False, description="the handled task itself, with its own action, input and dependencies")
    note: Expression | None = Field(None, description="with `own`: what the agent is told beside the input")
    save: VariableName | None = Field(None, description="takes the result")
    next: StateName
    on_failure: StateName | None = Field(None, description="when its attempts are used up; absent: the task fails")

    @model_validator(mode="after")
    def _own_work_is_the_tasks(self) -> Self:
        others = ("role", "agent", "action", "input", "undo", "timeout_seconds", "attempts")
        if self.own and any(getattr(self, field) is not None for field in others):
            raise ValueError(f"own work is the task's as it is defined: leave out {', '.join(others)}")
        if self.note is not None and not self.own:
            raise ValueError("note goes with own work; other work has input")
        return self


class Escalate(_Work):
    """As assign, to a superior, who is told what went wrong."""

    do: Literal["escalate"]
    role: Expression = Field(description="gives the superior's role")
    save: VariableName | None = None
    next: StateName
    on_failure: StateName | None = None


class Spawn(_Work):
    """Begins work for each element of a list, without waiting for it: a later `gather` does."""

    do: Literal["spawn"]
    each: Expression = Field(description="gives a list; in the other expressions `item` and `index` are its element")
    group: StateName = Field(description="how `gather` calls it")
    next: StateName


class Gather(_Work):
    """Waits for work: of a group, or of its own, begun for each element of a list."""

    do: Literal["gather"]
    each: Expression | None = None
    group: StateName | None = None
    need: Expression | None = Field(None, description="gives how many must succeed; all when absent")
    wait_seconds: WaitSeconds | None = Field(None, description="how long it waits; what is not done then is dropped")
    save: VariableName | None = Field(
        None, description="takes a list, in order: {agent, ok, result, error} for each piece of work"
    )
    next: StateName
    on_failure: StateName | None = Field(None, description="when too few succeeded; absent: the task fails")

    @model_validator(mode="after")
    def _waits_for_one_thing(self) -> Self:
        if (self.each is None) == (self.group is None):
            raise ValueError("give each (work to begin) or group (work that a spawn has begun), one of the two")
        if self.group is not None and any(getattr(self, field) is not None for field in _Work.model_fields):
            raise ValueError("the work of a group stands where it is spawned: leave its fields out here")
        return self


class Vote(_Work):
    """Asks agents for a vote each, and counts."""

    do: Literal["vote"]
    voters: Expression | None = Field(None, description="gives a list of agents' ids; all of the role when absent")
    choice: Expression = Field("ballot", description="what a voter chose, of `ballot`, its result; null abstains")
    count: VotingRule = Field(default_factory=VotingRule, description="as in the settings of the swarm pattern")
    wait_seconds: WaitSeconds | None = Field(None, description="who has not voted then abstains")
    save: VariableName | None = Field(
        None, description="takes {decided, decision, verdict, tally, voted, members, votes}"
    )
    decided: StateName
    undecided: StateName

    @model_validator(mode="after")
    def _asks_its_voters(self) -> Self:
        if self.agent is not None:
            raise ValueError("a vote asks each of its voters: give voters, and leave agent out")
        return self


class Case(StrictModel):
    when: Expression
    next: StateName


class Route(StrictModel):
    """Goes on where the first condition that is true says."""

    do: Literal["route"]
    cases: list[Case] = Field(min_length=1, max_length=CASES_MAX)
    otherwise: StateName


class SetVariables(StrictModel):
    """Gives variables new values, all from the old ones."""

    do: Literal["set"]
    values: dict[VariableName, Expression] = Field(min_length=1, max_length=VARIABLES_MAX)
    next: StateName


class Loop(StrictModel):
    """The head of a loop: each time it is entered, it begins a pass or goes on."""

    do: Literal["loop"]
    max: int = Field(ge=1, le=LOOP_MAX, description="passes at most")
    condition: Expression | None = Field(None, alias="while", description="looked at before each pass")
    body: StateName
    next: StateName
    exceeded: StateName | None = Field(None, description="after the last pass, if it would go on; absent: as `next`")

    @property
    def at_bound(self) -> str:
        return self.exceeded or self.next


class Compensate(StrictModel):
    """Undoes what was done and has an `undo`, the last first."""

    do: Literal["compensate"]
    save: VariableName | None = Field(None, description="takes {undone, left}: names of the work")
    next: StateName
    on_failure: StateName | None = Field(None, description="when some of it could not be undone; absent: as `next`")


class Wait(StrictModel):
    """Waits for an external event, or for a time."""

    do: Literal["wait"]
    event: EventName | None = Field(None, description="absent: it only waits")
    when: Expression | None = Field(None, description="over `event`, its payload; others are left to others")
    seconds: WaitSeconds = WAIT_DEFAULT_SECONDS
    save: VariableName | None = Field(None, description="takes the payload")
    next: StateName
    on_timeout: StateName | None = Field(None, description="absent: the task fails if no event came")

    @model_validator(mode="after")
    def _of_an_event(self) -> Self:
        if self.event is None and any(value is not None for value in (self.when, self.save, self.on_timeout)):
            raise ValueError("when, save and on_timeout belong to an event: name one, or leave them out")
        return self


class Finish(StrictModel):
    """The task's end."""

    do: Literal["finish"]
    outcome: Literal["complete", "fail"] = "complete"
    result: Expression | None = Field(
        None, description="with complete; absent: the result of its own work if there is one, else null"
    )
    error: Expression | None = Field(None, description="with fail: gives the message")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.outcome == "fail" and self.result is not None:
            raise ValueError("a failure has no result: give error, or the outcome complete")
        if self.outcome == "complete" and self.error is not None:
            raise ValueError("what is complete has no error: give result, or the outcome fail")
        return self


State = Annotated[
    Assign | Escalate | Spawn | Gather | Vote | Route | SetVariables | Loop | Compensate | Wait | Finish,
    Field(discriminator="do"),
]


class CoordinationLogic(StrictModel):
    """A whole program."""

    language: Literal[1] = LOGIC_VERSION
    handles: Expression | None = Field(
        None, description="over `task` and `config`: which tasks it runs for, all when absent; others just run"
    )
    variables: dict[VariableName, Any] = Field(
        default_factory=dict, max_length=VARIABLES_MAX, description="with what each is at first"
    )
    start: StateName
    states: dict[StateName, State] = Field(min_length=1, max_length=STATES_MAX)
    steps_max: int = Field(STEPS_DEFAULT, ge=1, le=STEPS_MAX, description="states that a task may enter")


class PatternProgram(Model):
    """What `pattern_config` of an execution holds under a custom pattern: everything that its workflow needs."""

    name: Name
    version: Version
    config: dict[str, Any] = Field(description="the definition's `pattern_config`, with the schema's defaults")
    logic: dict[str, Any] = Field(description="a CoordinationLogic as it was registered")


class PatternRegistration(StrictModel):
    """Parameters of `pattern.register`."""

    name: Name
    version: Version
    description: Text = ""
    pattern_type: Literal["custom"] = "custom"
    coordination_logic: dict[str, Any]
    configuration_schema: dict[str, Any] = Field(
        default_factory=dict, description="JSON Schema 2020-12 of the settings of definitions that use the pattern"
    )


def successors(state: State) -> list[tuple[str, str]]:
    """(field, state) for each way out of a state."""
    if isinstance(state, Route):
        cases = [(f"cases[{n}].next", case.next) for n, case in enumerate(state.cases)]
        return [*cases, ("otherwise", state.otherwise)]
    fields = ("body", "next", "exceeded", "decided", "undecided", "on_failure", "on_timeout")
    return [(field, name) for field in fields if (name := getattr(state, field, None)) is not None]
