"""Custom: each task that the registered pattern handles goes the way that the pattern's program says.

A task is the program's from when its dependencies are done until the program finishes; many tasks' programs run beside
each other. Tasks that the pattern does not handle go to the least-loaded agent, as under the supervisor.
"""

from collections.abc import Callable, Iterator

from workflows.kernel.desk import Desk
from workflows.kernel.policy import Policy
from workflows.kernel.state import RunState
from workflows.policies.program import Program
from workflows.policies.program_memory import AWAITED, DUE, Turn, is_programs, pc_key
from workflows.policies.program_run import Run
from workflows.policies.program_work import origin


class CustomPolicy(Policy):
    """Computed from the settings alone; what a program remembers is on the board."""

    coordinates = True

    def __init__(self) -> None:
        self._program: Program | None = None

    def judges(self, state: RunState, i: int) -> bool:
        spec = state.specs[i]
        return spec.asked or self._of(state).handles(spec.id, spec.role)

    def react(self, desk: Desk) -> None:
        turn = Turn(desk, self._of(desk.state))
        runs: dict[int, Run] = {}

        def run_of(i: int) -> Run:
            if i not in runs:
                runs[i] = Run(turn, i)
            return runs[i]

        self._hear(desk, run_of)
        for i in _due(desk):
            run_of(i)
        for i in sorted(runs):
            runs[i].advance()
        # What ends here makes others ready, which an agent would get as they are.
        while begun := self._ready(desk, turn.program):
            for i in begun:
                run_of(i).begin()
                runs[i].advance()
        turn.schedule.write()

    def next_due_ms(self, state: RunState) -> int | None:
        return min((at_ms for _, at_ms in _times(state)), default=None)

    def _of(self, state: RunState) -> Program:
        if self._program is None:
            self._program = Program(state.launch.pattern_config)
        return self._program

    def _ready(self, desk: Desk, program: Program) -> list[int]:
        """Ready tasks that are to become the program's."""
        state = desk.state
        return [
            i
            for i in desk.ready()
            if not state.specs[i].asked
            and pc_key(state.specs[i].id) not in state.board
            and program.handles(state.specs[i].id, state.specs[i].role)
        ]

    def _hear(self, desk: Desk, run_of: Callable[[int], Run]) -> None:
        """What has ended: work, the tasks themselves, and what was to be looked up."""
        state = desk.state
        for j in desk.submitted:
            if j not in state.submitted:
                continue
            if not state.specs[j].asked:
                if pc_key(state.specs[j].id) in state.board:
                    run_of(j)
                else:
                    desk.accept(j)  # handled no more: nobody waits for a judgement
                continue
            found = origin(desk, j)
            i = None if found is None else state.index.get(found["task"])
            if found is None or i is None or pc_key(found["task"]) not in state.board:
                desk.drop(j)
            else:
                run_of(i).works.ended(j, found)
        for key, (errand, outcome) in desk.outcomes.items():
            if pc_key(errand.task_id) in state.board:
                run = run_of(state.index[errand.task_id])
                run.hear(key, ok=outcome.ok, value=outcome.value, code=outcome.code, message=outcome.message)


def _due(desk: Desk) -> list[int]:
    """Tasks whose time has come, and those that wait for an event of which one is there."""
    state = desk.state
    found: list[str] = []
    if not state.paused:
        found += [task_id for task_id, at_ms in _times(state) if at_ms <= desk.now_ms]
    if state.kept and state.board.get(AWAITED):
        there = {arrival.type for arrival in state.kept.values()}
        found += [task_id for task_id, kind in sorted(state.board[AWAITED].items()) if kind in there]
    return [state.index[task_id] for task_id in dict.fromkeys(found) if is_programs(state, task_id)]


def _times(state: RunState) -> Iterator[tuple[str, int]]:
    """(task id, when it is to be looked at); time in which the execution was paused does not count."""
    for task_id, (began_ms, lasts_ms, paused_before_ms) in sorted((state.board.get(DUE) or {}).items()):
        if is_programs(state, task_id):
            yield task_id, began_ms + lasts_ms + state.paused_ms - paused_before_ms
