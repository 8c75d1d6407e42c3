"""All agents of a role at one task, for several turns each: what the swarm and the network share.

The pattern takes the task over and asks each member (an agent of the role) for a task of its own, `task[n]`, which
stays the same from turn to turn: a new turn is another attempt with another note. So the members of an execution, not
their turns, count against what an execution may add.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from workflows.kernel.desk import Desk, note_key
from workflows.kernel.state import Phase, RunState

TICK_BYTES_MAX: Final = 256 * 1024
"""Notes that one tick sends: a delta must fit what Temporal takes at once."""

TICK_CALLS_MAX: Final = 500
"""Members that one tick calls: a tick is to stay well below what a commit may take."""

ERROR: Final = "error"


class Budget:
    """What is left of one tick for all tasks of the pattern. What does not fit waits for the next tick, which is due
    at once."""

    def __init__(self) -> None:
        self._bytes_left = TICK_BYTES_MAX
        self._calls_left = TICK_CALLS_MAX

    @property
    def spent(self) -> bool:
        return self._bytes_left <= 0 or self._calls_left <= 0

    def spend(self, note: Any) -> None:
        self._calls_left -= 1
        self._bytes_left -= size_bytes_of(note)


def size_bytes_of(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


def taken_over(state: RunState) -> list[int]:
    """The definition's tasks that are under way in the pattern's hands."""
    planned = len(state.plan.tasks)
    return sorted(i for i in state.submitted if i < planned)


def take_ready(desk: Desk) -> None:
    planned = len(desk.state.plan.tasks)
    for i in desk.ready():
        if i < planned:
            desk.take(i)


def heard_by_task(desk: Desk) -> dict[int, list[tuple[int, int]]]:
    """For each task in the pattern's hands the members heard in this tick, as (number, index of the member's task)."""
    state = desk.state
    found: dict[int, list[tuple[int, int]]] = {}
    for j in desk.submitted:
        spec = state.specs[j]
        if j in state.submitted and spec.asked:
            name, _, number = spec.id.rpartition("[")
            found.setdefault(state.index[name], []).append((int(number[:-1]), j))
    return found


def is_failing(state: RunState, i: int) -> bool:
    return f"{state.specs[i].id}/{ERROR}" in state.board


class Assembly:
    """The members at one task, in one tick."""

    def __init__(self, desk: Desk, i: int, members: tuple[str, ...], budget: Budget) -> None:
        self.desk = desk
        self.state = desk.state
        self.i = i
        self.name = self.state.specs[i].id
        self.members = members
        self.budget = budget

    # The board -----------------------------------------------------------------------------------------------

    def get(self, name: str, default: Any = None) -> Any:
        return self.desk.get(f"{self.name}/{name}", default)

    def post(self, name: str, value: Any) -> None:
        self.desk.post(f"{self.name}/{name}", value)

    def note_of(self, n: int) -> dict[str, Any]:
        """What the member was last told."""
        found: dict[str, Any] = self.desk.get(note_key(self.task_id(n))) or {}
        return found

    # Members -------------------------------------------------------------------------------------------------

    def task_id(self, n: int) -> str:
        return f"{self.name}[{n}]"

    def task_of(self, n: int) -> int | None:
        return self.state.index.get(self.task_id(n))

    def is_idle(self, n: int) -> bool:
        """It has nothing to do: never asked, or heard and not called again."""
        j = self.task_of(n)
        return j is None or self.state.tasks[j].phase is Phase.SUBMITTED

    def call(self, n: int, note: dict[str, Any], input_data: dict[str, Any]) -> bool:
        """Have the member take another turn with this note; False when it is at work with the last one.

        `input_data` goes with its first turn and stays. Raises NoRoomError.
        """
        j = self.task_of(n)
        if j is None:
            self.desk.ask(self.i, self.task_id(n), agent=self.members[n], action=self.name,
                          input=input_data, note=note, alike=True)  # fmt: skip
        elif self.state.tasks[j].phase is Phase.SUBMITTED:
            self.desk.again(j, note)
        elif self.state.tasks[j].phase.in_flight:
            return False
        else:
            self.desk.note(j, note)  # it has not begun: it is told the latest
        self.budget.spend(note)
        return True

    def give_up(self, code: str, message: str) -> None:
        """The task fails. In the tick that took it over that must wait for the next one: stored ticks are applied kind
        by kind, failures first."""
        self.dismiss()
        if self.state.submitted[self.i].at_ms >= self.desk.now_ms:
            self.post(ERROR, [code, message])
        else:
            self.desk.fail(self.i, code, message)

    def is_given_up(self) -> bool:
        """Gives up what an earlier tick could not."""
        error = self.get(ERROR)
        if error is not None:
            self.give_up(*error)
        return error is not None

    def dismiss(self) -> None:
        """The task is over: what its members did is accepted, what they still do is stopped, nothing is remembered."""
        for n in range(len(self.members)):
            j = self.task_of(n)
            if j is None or self.state.tasks[j].phase.over:
                continue
            self.desk.post(note_key(self.task_id(n)), None)
            if self.state.tasks[j].phase is Phase.SUBMITTED and not self.state.submitted[j].failed:
                self.desk.accept(j)
            else:
                self.desk.drop(j)
        for key in self._own_keys():
            self.desk.post(key, None)

    def _own_keys(self) -> Iterator[str]:
        prefix = f"{self.name}/"
        yield from sorted(key for key in self.state.board if key.startswith(prefix))


def due_ms(state: RunState, began_at_ms: int, paused_before_ms: int, lasts_ms: int) -> int:
    """When so much time is over in which the execution was not paused."""
    return began_at_ms + lasts_ms + state.paused_ms - paused_before_ms
