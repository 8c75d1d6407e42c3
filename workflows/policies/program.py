"""A registered pattern's program, read and ready: its states, and its expressions with the steps they may take.

Expressions are evaluated in the workflow. They are the engine's own, pure, and of a stated version
(docs/decisions/0014-programs-run-in-the-workflow.md).
"""

from collections.abc import Mapping
from typing import Any, Final

from engine.contracts.patterns.language import (
    CoordinationLogic,
    Loop,
    PatternProgram,
    Route,
    SetVariables,
    State,
)
from engine.expressions import Expression, ExpressionError, evaluate_counted, names_of, parse

STEPS_A_STATE_MAX: Final = 50_000
"""Steps of all expressions of one state's visit together."""

STEPS_A_TICK: Final = 100_000
"""When so many are taken, further states wait for the next tick: a workflow must not keep its thread."""

STATES_A_TICK: Final = 500

BYTES_A_TICK: Final = 256 * 1024
"""Of variables and input of work: a tick's delta must fit what Temporal takes at once."""

_EXPRESSIONS: Final = (
    "role", "agent", "action", "input", "undo", "note", "each", "need", "voters", "choice", "condition", "when",
    "result", "error",
)  # fmt: skip


class ProgramError(Exception):
    """The program cannot go on: its task fails with this."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Allowance:
    """What is left of one tick's steps, for all tasks together."""

    def __init__(self) -> None:
        self._steps_left = STEPS_A_TICK
        self._states_left = STATES_A_TICK
        self._state_left = STEPS_A_STATE_MAX
        self._bytes_left = BYTES_A_TICK

    @property
    def spent(self) -> bool:
        return self._steps_left <= 0 or self._states_left <= 0 or self._bytes_left <= 0

    @property
    def state_left(self) -> int:
        return self._state_left

    def enter_state(self) -> None:
        self._states_left -= 1
        self._state_left = STEPS_A_STATE_MAX

    def spend_bytes(self, size_bytes: int) -> None:
        self._bytes_left -= size_bytes

    def spend(self, steps: int) -> None:
        self._steps_left -= steps
        self._state_left -= steps


class Program:
    """Computed from the settings alone; every run of an execution makes the same."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        packed = PatternProgram.model_validate(settings)
        self.config = packed.config
        self.logic = CoordinationLogic.model_validate(packed.logic)
        self._parsed: dict[str, Expression] = {}
        self._handled: dict[tuple[str, str], bool] = {}
        self.loops = sorted(name for name, state in self.logic.states.items() if isinstance(state, Loop))
        self.variables = self._variables()
        named = {root for text in self._texts() for root, _ in names_of(self.parsed(text))}
        self.reads = named & {"input", "results"}
        """Whether it looks at the execution's input, and at the results of dependencies."""

    def state(self, name: str) -> State:
        return self.logic.states[name]

    def parsed(self, text: str) -> Expression:
        found = self._parsed.get(text)
        if found is None:
            found = self._parsed[text] = parse(text)
        return found

    def handles(self, task_id: str, role: str) -> bool:
        if self.logic.handles is None:
            return True
        key = (task_id, role)
        if key not in self._handled:
            names = {"task": {"id": task_id, "role": role, "attempts": 0}, "config": self.config}
            try:
                value, _ = evaluate_counted(self.parsed(self.logic.handles), names, steps_max=STEPS_A_STATE_MAX)
            except ExpressionError:
                value = True  # its first state will say what is wrong
            self._handled[key] = value is True
        return self._handled[key]

    def value(self, text: str, names: Mapping[str, Any], allowance: Allowance) -> Any:
        """Raises ProgramError with the expression's own code."""
        try:
            value, steps = evaluate_counted(self.parsed(text), names, steps_max=max(allowance.state_left, 1))
        except ExpressionError as error:
            raise ProgramError(error.code, f"{text[:100]}: {error.message}") from error
        allowance.spend(steps)
        return value

    def holds(self, text: str, names: Mapping[str, Any], allowance: Allowance) -> bool:
        value = self.value(text, names, allowance)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise ProgramError("EXPRESSION_TYPE", f"{text[:100]}: a condition must be true, false or null")

    def _texts(self) -> list[str]:
        found: list[str] = []
        for state in self.logic.states.values():
            found.extend(text for field in _EXPRESSIONS if isinstance(text := getattr(state, field, None), str))
            if isinstance(state, Route):
                found.extend(case.when for case in state.cases)
            elif isinstance(state, SetVariables):
                found.extend(state.values.values())
        return found

    def _variables(self) -> frozenset[str]:
        named = set(self.logic.variables)
        for state in self.logic.states.values():
            if isinstance(state, SetVariables):
                named.update(state.values)
            elif (saved := getattr(state, "save", None)) is not None:
                named.add(saved)
        return frozenset(named)
