"""A plan drawn as text: waves with their tasks on a time line, the critical path, the parallelism, the advice.

Plain lines without colour: the caller prints, pages or decorates them.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from engine.contracts.plan import Plan, PlanTask, Problem

TASKS_SHOWN_MAX: Final = 200
WAVES_SHOWN_MAX: Final = 60
ADVICE_SHOWN_MAX: Final = 20
CHAINS_SHOWN_MAX: Final = 20
PATH_ENDS_SHOWN_MAX: Final = 20
NAME_WIDTH_MAX: Final = 28
TIMELINE_WIDTH: Final = 40
DEPENDENCIES_SHOWN_MAX: Final = 4

_RUNS, _CAN_WAIT, _IDLE = "█", "░", "·"


def render_plan(plan: Plan, *, tasks_max: int = TASKS_SHOWN_MAX) -> list[str]:
    """The lines of the drawing, at most `tasks_max` tasks and a bounded number of everything else."""
    return [
        *_header(plan),
        "",
        *_waves(plan, tasks_max),
        "",
        *_critical_path(plan),
        "",
        *_parallelism(plan),
        *_chains(plan),
        *_advice("Warnings", plan.warnings),
        *_advice("Optimizations", plan.optimizations),
    ]


def format_seconds(seconds: float) -> str:
    """A duration for people: "250 ms", "1.5 s", "2 min 5 s", "3 h 20 min"."""
    if seconds < 1:
        return f"{round(seconds * 1000, 1):g} ms" if seconds else "0 s"
    if seconds < 60:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _header(plan: Plan) -> Iterator[str]:
    needs = plan.estimated_resources
    yield (
        f"Plan {plan.plan_hash[:12]}: {_count(len(plan.tasks), 'task')} in {_count(len(plan.waves), 'wave')}, "
        f"at most {plan.parallelism_max} at once"
    )
    yield (
        f"Critical path {format_seconds(plan.critical_path_seconds)}; estimated duration "
        f"{format_seconds(needs.estimated_duration_seconds)} with {_count(needs.agents_required, 'agent')}"
        + (f", {needs.cpu_cores:g} cores, {needs.memory_gb:g} GB" if needs.cpu_cores or needs.memory_gb else "")
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _waves(plan: Plan, tasks_max: int) -> Iterator[str]:
    name_width = min(NAME_WIDTH_MAX, max((len(task.id) for task in plan.tasks), default=0))
    role_width = min(NAME_WIDTH_MAX, max((len(task.role) for task in plan.tasks), default=0))
    left = tasks_max
    for number, wave in enumerate(plan.waves):
        if left <= 0:
            rest = len(plan.tasks) - tasks_max
            yield f"... {_count(rest, 'more task')} in {_count(len(plan.waves) - number, 'more wave')}"
            return
        yield f"Wave {number}  ({_count(len(wave), 'task')})"
        for index in wave[:left]:
            yield _task_line(plan, plan.tasks[index], name_width, role_width)
        if len(wave) > left:
            yield f"    ... {_count(len(wave) - left, 'more task')} in this wave"
        left -= len(wave)
    yield f"  * on a critical path; {_RUNS} runs at the earliest, {_CAN_WAIT} slack"


def _task_line(plan: Plan, task: PlanTask, name_width: int, role_width: int) -> str:
    mark = "*" if task.on_critical_path else " "
    slack = "" if task.on_critical_path else f"  slack {format_seconds(task.slack_seconds)}"
    return (
        f"  {mark} {_cut(task.id, name_width):<{name_width}}  {_cut(task.role, role_width):<{role_width}}  "
        f"|{_timeline(plan, task)}|  {format_seconds(task.estimate_seconds)} from "
        f"{format_seconds(task.earliest_start_seconds)}{slack}{_after(plan, task)}{_dynamic(task)}"
    )


def _after(plan: Plan, task: PlanTask) -> str:
    if not task.depends_on:
        return ""
    names = [_cut(plan.tasks[index].id, NAME_WIDTH_MAX) for index in task.depends_on[:DEPENDENCIES_SHOWN_MAX]]
    more = len(task.depends_on) - len(names)
    return f"  after {', '.join(names)}" + (f" and {more} more" if more else "")


def _dynamic(task: PlanTask) -> str:
    return f"  [{', '.join(task.dynamic)}]" if task.dynamic else ""


def _timeline(plan: Plan, task: PlanTask) -> str:
    whole = plan.critical_path_seconds
    if whole <= 0:
        return _IDLE * TIMELINE_WIDTH
    start = min(round(task.earliest_start_seconds / whole * TIMELINE_WIDTH), TIMELINE_WIDTH - 1)
    finish_seconds = task.earliest_start_seconds + task.estimate_seconds
    end = min(max(round(finish_seconds / whole * TIMELINE_WIDTH), start + 1), TIMELINE_WIDTH)
    latest = round((finish_seconds + task.slack_seconds) / whole * TIMELINE_WIDTH)
    latest = min(max(latest, end), TIMELINE_WIDTH)
    return _IDLE * start + _RUNS * (end - start) + _CAN_WAIT * (latest - end) + _IDLE * (TIMELINE_WIDTH - latest)


def _critical_path(plan: Plan) -> Iterator[str]:
    yield f"Critical path ({format_seconds(plan.critical_path_seconds)}): {_path(plan, plan.critical_path)}"


def _path(plan: Plan, indexes: Sequence[int]) -> str:
    names = [_cut(plan.tasks[index].id, NAME_WIDTH_MAX) for index in indexes]
    if len(names) > 2 * PATH_ENDS_SHOWN_MAX:
        left_out = len(names) - 2 * PATH_ENDS_SHOWN_MAX
        names = [*names[:PATH_ENDS_SHOWN_MAX], f"({left_out} more)", *names[-PATH_ENDS_SHOWN_MAX:]]
    return " -> ".join(names)


def _chains(plan: Plan) -> Iterator[str]:
    if not plan.chains:
        return
    yield ""
    yield f"Fused chains ({len(plan.chains)}): one agent does each without a pause"
    for chain in plan.chains[:CHAINS_SHOWN_MAX]:
        yield f"  {_count(len(chain), 'task')}  {_path(plan, chain)}"
    if len(plan.chains) > CHAINS_SHOWN_MAX:
        yield f"  ... {_count(len(plan.chains) - CHAINS_SHOWN_MAX, 'more chain')}"


def _parallelism(plan: Plan) -> Iterator[str]:
    yield "Parallelism"
    widest = max(plan.parallelism, default=1)
    for number, tasks in enumerate(plan.parallelism[:WAVES_SHOWN_MAX]):
        length = tasks if widest <= TIMELINE_WIDTH else max(1, round(tasks / widest * TIMELINE_WIDTH))
        yield f"  wave {number:>4}  {_RUNS * length} {tasks}"
    if len(plan.parallelism) > WAVES_SHOWN_MAX:
        yield f"  ... {_count(len(plan.parallelism) - WAVES_SHOWN_MAX, 'more wave')}"


def _advice(title: str, problems: Sequence[Problem]) -> Iterator[str]:
    if not problems:
        return
    yield ""
    yield f"{title} ({len(problems)})"
    for problem in problems[:ADVICE_SHOWN_MAX]:
        yield f"  {problem.code}  {problem}"
    if len(problems) > ADVICE_SHOWN_MAX:
        yield f"  ... {len(problems) - ADVICE_SHOWN_MAX} more"
