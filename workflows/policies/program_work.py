"""Work that a program gives to agents: tasks of the pattern's own, in groups, and what came of each.

A group's tasks stand under `<state>-<step>` in the memory of the task for whose sake they are. Back from a task of the
pattern's own to that one leads `/of/<id>` on the board.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.contracts.patterns.language import FAN_OUT_MAX
from workflows.kernel.desk import Desk, NoRoomError
from workflows.kernel.state import RunState
from workflows.policies.naming import free_task_id
from workflows.policies.program import ProgramError
from workflows.policies.program_memory import Memory, size_bytes_of

INPUT_BYTES_MAX: Final = 64 * 1024
"""Input of one piece of work as JSON."""

TICK_BYTES_MAX: Final = 128 * 1024
"""Input of all the work that one task begins in one tick; more waits for the next."""

TOO_LARGE: Final = "RESULT_TOO_LARGE_FOR_PATTERN"
TOO_LARGE_MESSAGE: Final = "the result is above 4 KiB: a pattern sees small results only; answer less, or a reference"


def origin_key(task_id: str) -> str:
    return f"/of/{task_id}"


def origin(desk: Desk, j: int) -> dict[str, Any] | None:
    """Of a task of the pattern's own: {task, group, k} and `undo` if it can be undone."""
    found: dict[str, Any] | None = desk.get(origin_key(desk.state.specs[j].id))
    return found


class Works:
    """The work of one task, in one tick."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.desk = memory.desk
        self.allowance = memory.allowance
        self._bytes_left = TICK_BYTES_MAX

    # Beginning -----------------------------------------------------------------------------------------------

    def open_group(self, size: int, suffix: str = "") -> str:
        """Its name. Raises ProgramError."""
        if size > FAN_OUT_MAX:
            raise ProgramError("TOO_MUCH_WORK", f"{size} pieces of work at once; at most {FAN_OUT_MAX} are begun")
        pc = self.memory.pc
        group = f"{pc['s']}-{pc['n']}{suffix}"
        self.post_group(group, {"size": size, "begun": 0, "left": size, "ok": 0})
        self.memory.change(gs=[*pc["gs"], group])
        return group

    def group(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.memory.get(f"g.{name}") or {"size": 0, "begun": 0, "left": 0, "ok": 0}
        return found

    def post_group(self, name: str, group: dict[str, Any]) -> None:
        self.memory.post(f"g.{name}", group)

    def begin(self, group: str, state: Any, pieces: Sequence[Mapping[str, Any]], names: Mapping[str, Any]) -> bool:
        """Ask for those that are not begun yet, as far as a tick goes; whether all are begun.

        A piece holds what its expressions see beside `names`, and may name its `agent`, `action` and `input`. Raises
        ProgramError.
        """
        record = self.group(group)
        begun = record["begun"]
        while begun < len(pieces) and self._bytes_left > 0 and not self.allowance.spent:
            self._ask(group, begun, state, pieces[begun], names)
            begun += 1
        if begun != record["begun"]:
            self.post_group(group, {**self.group(group), "begun": begun})
        return bool(begun == len(pieces))

    def _ask(self, group: str, k: int, state: Any, piece: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        spec = self.desk.state.specs[self.memory.i]
        seen = {**names, **{name: piece[name] for name in ("item", "index", "voter") if name in piece}}
        agent = piece.get("agent") or self._text(state, "agent", seen)
        role = self._text(state, "role", seen) or spec.role
        action = self._text(state, "action", seen) or self.memory.pc["s"]
        given = piece["input"] if "input" in piece else self._input(state, seen)
        undo = self._text(state, "undo", seen)
        task_id = self.begin_one(
            group, agent, role, action, given, k=k, seconds=state.timeout_seconds, attempts=state.attempts
        )
        if undo is not None:
            link = {**(self.desk.get(origin_key(task_id)) or {})}
            link["undo"] = {"action": undo, "agent": agent, "role": role, "input": given}
            self.desk.post(origin_key(task_id), link)

    def begin_one(
        self,
        group: str,
        agent: str | None,
        role: str,
        action: str,
        given: dict[str, Any],
        *,
        k: int = 0,
        seconds: int | None = None,
        attempts: int | None = None,
    ) -> str:
        """The id of the task that was asked for. Raises ProgramError."""
        desk = self.desk
        spec = desk.state.specs[self.memory.i]
        _check_worker(desk.state, agent, role)
        size_bytes = size_bytes_of(given)
        if size_bytes > INPUT_BYTES_MAX:
            message = f"input has {size_bytes} bytes; at most {INPUT_BYTES_MAX} go to an agent"
            raise ProgramError("VALUE_TOO_LARGE", message)
        self._bytes_left -= size_bytes
        self.allowance.spend_bytes(size_bytes)
        task_id = free_task_id(desk.state, spec.id, group, k)
        retry = spec.retry if attempts is None else spec.retry.model_copy(update={"max_attempts": attempts})
        try:
            desk.ask(
                self.memory.i, task_id, agent=agent, role=role, action=action, input=given, retry=retry,
                timeout_ms=None if seconds is None else seconds * 1000, within=True,
            )  # fmt: skip
        except NoRoomError as error:
            raise ProgramError("NO_ROOM", str(error)) from error
        desk.post(origin_key(task_id), {"task": spec.id, "group": group, "k": k})
        return task_id

    def _text(self, state: Any, field: str, names: Mapping[str, Any]) -> str | None:
        text = getattr(state, field, None)
        if text is None:
            return None
        value = self.memory.program.value(text, names, self.allowance)
        if value is None and field == "undo":
            return None
        if not isinstance(value, str) or not 0 < len(value) <= 255:
            raise ProgramError("EXPRESSION_TYPE", f"{field}: must give a name of 1 to 255 characters")
        return value

    def _input(self, state: Any, names: Mapping[str, Any]) -> dict[str, Any]:
        text = getattr(state, "input", None)
        if text is None:
            return {}
        value = self.memory.program.value(text, names, self.allowance)
        if not isinstance(value, dict):
            raise ProgramError("EXPRESSION_TYPE", "input: must give an object")
        return value

    # What came of it -----------------------------------------------------------------------------------------

    def ended(self, j: int, found: Mapping[str, Any]) -> None:
        """A task of the pattern's own has ended: keep what matters, and be done with it."""
        desk, memory = self.desk, self.memory
        submission = desk.state.submitted[j]
        record: dict[str, Any] = {"agent": submission.agent_id, "ok": not submission.failed, "result": None}
        if submission.failed:
            record["error"] = {"code": submission.code, "message": submission.message}
            desk.drop(j)
        else:
            if submission.result_ref is not None:
                record["ok"] = False
                record["error"] = {"code": TOO_LARGE, "message": TOO_LARGE_MESSAGE}
            else:
                record["result"] = submission.result
            desk.accept(j)
            if "undo" in found:
                self._can_be_undone(submission.task_id, {**found["undo"], "result": record["result"]})
        desk.post(origin_key(submission.task_id), None)
        group = found["group"]
        counts = self.group(group)
        self.post_group(group, {**counts, "left": counts["left"] - 1, "ok": counts["ok"] + record["ok"]})
        memory.post(f"r.{group}.{found['k']}", record)

    def _can_be_undone(self, task_id: str, undo: dict[str, Any]) -> None:
        n = self.memory.pc["u"]
        self.memory.post(f"u.{n}", {"work": task_id, **undo})
        self.memory.change(u=n + 1)

    def results(self, group: str) -> list[dict[str, Any]]:
        """In order; what was not done is not ok and has no agent."""
        missing = {"agent": None, "ok": False, "result": None, "error": {"code": "NOT_DONE", "message": "not done"}}
        size = self.group(group)["size"]
        return [{"error": None, **(self.memory.get(f"r.{group}.{k}") or missing)} for k in range(size)]

    def close_group(self, group: str) -> None:
        """What of it still runs is dropped, and nothing of it is remembered."""
        memory = self.memory
        record = self.group(group)
        if record["left"]:
            self._drop_open(group)
        for k in range(record["size"]):
            memory.post(f"r.{group}.{k}", None)
        memory.post(f"g.{group}", None)
        memory.change(gs=[name for name in memory.pc["gs"] if name != group])

    def _drop_open(self, group: str) -> None:
        desk, task_id = self.desk, self.memory.task_id
        for j in desk.asked_about(""):
            found = origin(desk, j)
            if found is not None and (found["task"], found["group"]) == (task_id, group):
                desk.drop(j)
                desk.post(origin_key(desk.state.specs[j].id), None)


def _check_worker(state: RunState, agent: str | None, role: str) -> None:
    if agent is not None and agent not in state.agents:
        raise ProgramError("UNKNOWN_AGENT", f"there is no agent {agent[:100]}; agents lists them by role")
    if agent is None and role not in state.plan.roles:
        known = ", ".join(sorted(state.plan.roles))
        raise ProgramError("UNKNOWN_AGENT_ROLE", f"there is no role {role[:100]}; there are {known}")
