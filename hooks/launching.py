"""What an execution must know of the tenant's blocking hooks: found out once, when it is started.

So an execution whose tenant has none, or none that could match, costs nothing. Hooks that are registered later hold for
executions that are started later; those that are disabled or deleted meanwhile are asked nothing any more.
"""

from engine.contracts.hooks import HookMode, HookTrigger
from engine.contracts.kernel import BlockingHooks, KernelPlan
from hooks.guarding import Guarded
from hooks.matching import HookIndex


def guard(plan: KernelPlan, workflow_name: str, index: HookIndex) -> tuple[KernelPlan, BlockingHooks | None]:
    """The plan with the tasks marked that hooks guard; itself where there are none."""
    found = BlockingHooks(
        pre_workflow=_any(index, Guarded(HookTrigger.PRE_WORKFLOW, workflow_name)),
        post_workflow=_any(index, Guarded(HookTrigger.POST_WORKFLOW, workflow_name)),
        added_tasks=index.has(HookTrigger.PRE_TASK, HookMode.BLOCKING),
    )
    if found.added_tasks:
        guarded = [
            n for n, task in enumerate(plan.tasks)
            if _any(index, Guarded(HookTrigger.PRE_TASK, workflow_name, task.id, task.role))
        ]  # fmt: skip
        if guarded:
            tasks = list(plan.tasks)
            for n in guarded:
                # It cannot go out unseen behind another.
                tasks[n] = tasks[n].model_copy(update={"guarded": True, "fused": False})
            plan = plan.model_copy(update={"tasks": tuple(tasks)})
    return plan, found if found != BlockingHooks() else None


def _any(index: HookIndex, guarded: Guarded) -> bool:
    return bool(index.matching(guarded.trigger, HookMode.BLOCKING, guarded.subject))
