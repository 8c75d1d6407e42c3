"""What a program remembers of one task, all on the board.

`pc` is where it stands: the state `s`, whether it was entered (`in`) and when (`t`), how many states were (`n`), passes
of loops (`l`), groups of work by the names that spawns gave them (`named`), those not yet done with (`gs`), how much
may be undone (`u`), how large each variable is (`b`), what the present state waits for (`w`), and how it is to end
(`end`). Beside it: `v.<variable>`, `g.<group>`, `r.<group>.<k>` (how a piece of work ended), `u.<n>`, `ctx`, `error`.
"""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from engine.contracts.patterns.language import VALUE_BYTES_MAX, VALUES_BYTES_MAX
from workflows.kernel.desk import Desk, note_key
from workflows.kernel.state import RunState
from workflows.policies.program import Allowance, Program, ProgramError

DUE: Final = "/due"
"""When tasks are to be looked at although nothing came: by id [began, lasts, paused before], in ms."""


INPUT: Final = "/input"
"""The execution's input, once a program has looked it up."""

AWAITED: Final = "/awaited"
"""Tasks that wait for an external event, with its type."""


def pc_key(task_id: str) -> str:
    """Where a task's place in the program stands; what is there is the program's task."""
    return f"{task_id}/pc"


def is_programs(state: RunState, task_id: str) -> bool:
    """Whether a program runs for the task. What runs again from a checkpoint, or ended otherwise, is no program's."""
    i = state.index.get(task_id)
    return i is not None and pc_key(task_id) in state.board and not state.tasks[i].phase.over


def size_bytes_of(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


class Schedule:
    """Which tasks are to be looked at although no work of theirs has ended. Written once a tick for all of them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._changes: dict[str, dict[str, Any]] = {}

    def set(self, key: str, task_id: str, value: Any) -> None:
        """`value` is None for a task that need not be looked at any more."""
        if value is not None or task_id in (self._desk.get(key) or {}):
            self._changes.setdefault(key, {})[task_id] = value
        else:
            self._changes.get(key, {}).pop(task_id, None)

    def write(self) -> None:
        """Going back to a checkpoint leaves these lists as they were: what they say of others is dropped here."""
        for key in (AWAITED, DUE):
            listed = {**(self._desk.get(key) or {}), **self._changes.get(key, {})}
            kept = {
                name: value
                for name, value in listed.items()
                if value is not None and is_programs(self._desk.state, name)
            }
            self._desk.post(key, kept or None)
        self._changes = {}


class Turn:
    """What all tasks share in one tick."""

    def __init__(self, desk: Desk, program: Program) -> None:
        self.desk = desk
        self.program = program
        self.allowance = Allowance()
        self.schedule = Schedule(desk)

    @cached_property
    def agents(self) -> dict[str, list[str]]:
        """Their ids by role."""
        state = self.desk.state
        return {role: [agent.agent_id for agent in state.agents_of(role)] for role in sorted(state.plan.roles)}


class Memory:
    """Of one task, in one tick. Values are replaced, never changed in place."""

    def __init__(self, turn: Turn, i: int) -> None:
        self.turn = turn
        self.allowance = turn.allowance
        self.desk = turn.desk
        self.i = i
        self.program = turn.program
        self.task_id = self.desk.state.specs[i].id
        self.pc: dict[str, Any] = dict(self.get("pc") or {})

    def get(self, name: str) -> Any:
        return self.desk.get(f"{self.task_id}/{name}")

    def post(self, name: str, value: Any) -> None:
        self.desk.post(f"{self.task_id}/{name}", value)

    def begin(self) -> None:
        self.sleep()
        self.pc = {"s": self.program.logic.start, "in": False, "n": 0, "l": {}, "named": {}, "gs": [], "u": 0,
                   "b": {}}  # fmt: skip

    def keep(self) -> None:
        self.post("pc", self.pc)

    def go(self, state: str) -> None:
        self.pc = {**self.pc, "s": state, "in": False, "w": None}

    def change(self, **fields: Any) -> None:
        self.pc = {**self.pc, **fields}

    # Variables -----------------------------------------------------------------------------------------------

    def names(self) -> dict[str, Any]:
        """What expressions see, save what is a state's own."""
        state, spec = self.desk.state, self.desk.state.specs[self.i]
        variables = {name: self._variable(name) for name in sorted(self.program.variables)}
        return {
            **variables,
            "config": self.program.config,
            "task": {"id": spec.id, "role": spec.role, "attempts": state.tasks[self.i].attempt},
            "agents": self.turn.agents,
            "loops": {name: self.pc["l"].get(name, 0) for name in self.program.loops},
            "error": self.get("error"),
            "input": (self.desk.get(INPUT) or [None])[0],
            "results": self.get("ctx") or {},
        }

    def _variable(self, name: str) -> Any:
        boxed = self.get(f"v.{name}")
        return self.program.logic.variables.get(name) if boxed is None else boxed[0]

    def save(self, name: str | None, value: Any) -> None:
        """Boxed, since null on the board would be nothing."""
        if name is None:
            return
        sizes = {**self.pc["b"], name: self.fitting_bytes(name, value)}
        together = sum(sizes.values())
        if together > VALUES_BYTES_MAX:
            message = f"with {name} the variables would hold {together} bytes; at most {VALUES_BYTES_MAX} are taken"
            raise ProgramError("VALUE_TOO_LARGE", message)
        self.change(b=sizes)
        self.post(f"v.{name}", [value])

    def fitting_bytes(self, name: str, value: Any) -> int:
        """Its size. Raises ProgramError for a value that is too large to be kept."""
        size_bytes = size_bytes_of(value)
        if size_bytes > VALUE_BYTES_MAX:
            message = f"{name} would hold {size_bytes} bytes; at most {VALUE_BYTES_MAX} are taken"
            raise ProgramError("VALUE_TOO_LARGE", message)
        self.allowance.spend_bytes(size_bytes)
        return size_bytes

    def lacks(self) -> list[str]:
        """Which of input and results the program names and nobody has looked up."""
        known = {"input"} if self.desk.get(INPUT) is not None else set()
        return sorted(self.program.reads - known)

    def learn(self, context: dict[str, Any]) -> None:
        """The input is the same for all tasks, and is kept once."""
        if "input" in context and self.desk.get(INPUT) is None:
            self.desk.post(INPUT, [context["input"]])
        if "results" in context:
            self.post("ctx", context["results"])

    # Times ---------------------------------------------------------------------------------------------------

    @property
    def paused_ms(self) -> int:
        """All pauses so far, the one under way included."""
        state = self.desk.state
        under_way_ms = 0 if state.paused_at_ms is None else max(self.desk.now_ms - state.paused_at_ms, 0)
        return state.paused_ms + under_way_ms

    def wake_in(self, lasts_ms: int) -> None:
        self.wake_at(self.desk.now_ms, lasts_ms, self.paused_ms)

    def wake_at(self, began_ms: int, lasts_ms: int, paused_before_ms: int) -> None:
        self.turn.schedule.set(DUE, self.task_id, [began_ms, lasts_ms, paused_before_ms])

    def sleep(self) -> None:
        """Nothing but what comes in wakes it."""
        for key in (DUE, AWAITED):
            self.turn.schedule.set(key, self.task_id, None)

    def await_event(self, kind: str) -> None:
        self.turn.schedule.set(AWAITED, self.task_id, kind)

    def is_over(self, seconds: int | None) -> bool:
        """Whether so much time has gone since the present state was entered, pauses left out.

        Never while paused: what comes in then is still in time.
        """
        if seconds is None or self.desk.state.paused:
            return False
        began_ms, paused_before_ms = self.pc["t"]
        due_ms: int = began_ms + seconds * 1000 + self.paused_ms - paused_before_ms
        return self.desk.now_ms >= due_ms

    # The end -------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        self.sleep()
        for name in list(self._own()):
            self.post(name, None)
        self.desk.post(note_key(self.task_id), None)

    def _own(self) -> Iterator[str]:
        yield from ("pc", "ctx", "error")
        yield from (f"v.{name}" for name in sorted(self.program.variables))
        yield from (f"u.{n}" for n in range(self.pc.get("u", 0)))
        for group in self.pc.get("gs", ()):
            yield f"g.{group}"
            yield from (f"r.{group}.{k}" for k in range((self.get(f"g.{group}") or {}).get("size", 0)))
