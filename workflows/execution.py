"""What every pattern's workflow does: wait, tick, commit, apply; until the execution is closed.

The workflow decides (through the pure kernel) and activities do. Each tick is one local activity that commits the
delta to the journal and answers what the journal holds. Local activities run inside the workflow task, so a run of
fast tasks costs Temporal no round trip a task.
"""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError

with workflow.unsafe.imports_passed_through():
    from engine.contracts import activity_names
    from engine.contracts.dynamic import Evaluation, ExternalEvent
    from engine.contracts.events import InboxBatch
    from engine.contracts.execution import ExecutionStatus
    from engine.contracts.handover import HandedTick
    from engine.contracts.kernel import (
        BindRequest,
        BindResult,
        Carry,
        Checkpoint,
        CheckpointRequest,
        Control,
        Delta,
        ErrandOutcome,
        ExecutionInput,
        ExecutionOutcome,
        Rewind,
        TerminalError,
        TickOutcome,
    )
    from workflows.kernel.burst import Burst
    from workflows.kernel.decide import Decision, decide
    from workflows.kernel.due import next_due_ms
    from workflows.kernel.dynamics import evaluation_request, must_evaluate
    from workflows.kernel.inbox import Inbox
    from workflows.kernel.policy import Policy
    from workflows.kernel.progress import progress_table, tick_summary
    from workflows.kernel.state import Phase, RunState
    from workflows.kernel.transitions import apply_delta

from workflows.errands import Errands

LOCAL_TICK = timedelta(seconds=2)
LOCAL_RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=50), maximum_interval=timedelta(milliseconds=200), maximum_attempts=3
)
PATIENT_TICK = timedelta(seconds=15)
PATIENT_RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10))
"""No limit of attempts: an outage of PostgreSQL is sat out, it fails nobody's execution."""

CHAINED_MS_MAX = 1_000
"""After so long without a pause between ticks, the workflow lets signals in."""

TIMER_EARLY_MS_MAX = 1_000
"""A timer that is earlier than needed is kept when it is no earlier than that: else it would cost a workflow task."""

IN_VAIN_MS = 100
"""After a tick that found nothing to do although something was due, the next one waits so long: whatever is wrong then,
the workflow must not turn in circles within one task."""

TIMER_KEPT_MS = 5_000
"""A timer that is early stays while it is that far away."""

HISTORY_BYTES_MAX = 1024 * 1024


class ExecutionWorkflow:
    """Base of the patterns' workflows. Signal handlers only append; the loop does the rest."""

    def __init__(self, launch: ExecutionInput, policy: Policy) -> None:
        self._launch = launch
        self._policy = policy
        self._state = RunState(launch) if launch.carry is None else RunState.restore(launch, launch.carry.state)
        self._inbox = Inbox()
        if launch.carry is not None:
            self._inbox.batches.extend(launch.carry.inbox)
            self._inbox.external.extend(launch.carry.external)
        self._asked: list[tuple[str, str | None]] = []
        self._forced = launch.carry is None
        self._allocation: asyncio.Task[None] | None = None
        self._allocation_error: tuple[str, str] | None = None
        self._hosts_news = False
        self._waiting_in_vain = False
        """The last allocation found no host: the next one waits for news of a new host."""
        self._errands = Errands(launch, self._inbox_errand)
        self._timer: asyncio.Task[None] | None = None
        self._timer_due_ms = 0
        self._floor_ms = 0
        self._in_vain = False
        """The last tick found nothing to do."""
        self._chain_began_ms = 0
        self._asks = 0
        self._error: TerminalError | None = None
        self._history_length = 0
        self._base_tick = self._state.tick

    # Signals and queries: synchronous, they append only -----------------------------------------------------

    @workflow.signal
    def events(self, batches: list[InboxBatch]) -> None:
        self._inbox.batches.extend(batches)

    @workflow.signal
    def pause(self, request_id: str | None = None) -> None:
        """From the API with the id of its control row; from Temporal's own UI or CLI without."""
        self._asked.append(("pause", request_id))

    @workflow.signal
    def resume(self, request_id: str | None = None) -> None:
        self._asked.append(("resume", request_id))

    @workflow.signal
    def cancel(self, request_id: str | None = None) -> None:
        self._asked.append(("cancel", request_id))

    @workflow.signal
    def checkpoint(self, request_id: str | None = None) -> None:
        self._asked.append(("checkpoint", request_id))

    @workflow.signal
    def external_event(self, event: ExternalEvent) -> None:
        self._inbox.external.append(event)

    @workflow.signal
    def catch_up(self) -> None:
        """The journal may be ahead of this history: adopt what it holds."""
        self._forced = True

    @workflow.query
    def progress(self) -> dict[str, Any]:
        state = self._state
        return {
            "status": state.status.value,
            "tick": state.tick,
            "epoch": state.epoch,
            "completed": state.completed,
            "failed": state.failed,
            "total": len(state.tasks),
            "in_flight": [
                {"task": state.specs[i].id, "agent": state.tasks[i].agent_id} for i in sorted(state.in_flight)
            ],
        }

    # The loop ------------------------------------------------------------------------------------------------

    async def carry_out(self) -> ExecutionOutcome:
        """Run to the end. Temporal's own cancellation request becomes an orderly cancel."""
        self._check_owner()
        loop = asyncio.create_task(self._loop())
        while True:
            try:
                await asyncio.shield(loop)
                break
            except asyncio.CancelledError:
                if loop.done():
                    loop.result()
                    break
                self._asked.append(("cancel", None))
        state = self._state
        return ExecutionOutcome(
            status=state.status, tasks_completed=state.completed, tasks_failed=state.failed, error=self._error
        )

    def _check_owner(self) -> None:
        """The argument's tenant is whose plan and data are read: it must be the one that the workflow's id names."""
        owner = f"{self._launch.tenant}/{self._launch.execution_id}"
        if workflow.info().workflow_id != owner and not workflow.info().workflow_id.startswith(f"{owner}/"):
            raise ApplicationError("the argument is of another execution", type="FOREIGN_INPUT", non_retryable=True)

    async def _loop(self) -> None:
        self._chain_began_ms = self._now_ms()
        if self._launch.carry is None:
            await self._begin()
        else:
            self._errands.keep_up(self._state, none_new=False)
        while not self._state.closed:
            await self._wait()
            await self._listen()
            await self._evaluate()
            await self._tick()
            if self._may_continue_as_new():
                await self._continue_as_new()
        self._stop_timer()
        self._errands.stop()
        if self._allocation is not None:
            self._allocation.cancel()

    async def _continue_as_new(self) -> None:
        """As the only command of its workflow task: a signal that comes at the wrong moment makes the server refuse
        the task, and what local activities brought in it would be lost with it."""
        self._stop_timer()
        await workflow.sleep(timedelta(milliseconds=1), summary="before going on as a new run")
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._may_continue_as_new():
            carry = Carry(
                state=self._state.snapshot(),
                inbox=tuple(self._inbox.batches),
                external=tuple(self._inbox.external),
                teams=self._carried_teams(),
            )
            workflow.continue_as_new(self._launch.model_copy(update={"carry": carry}))

    def _carried_teams(self) -> dict[str, str]:
        """For patterns that show teams as workflows."""
        return {}

    def _now_ms(self) -> int:
        """Never goes back, and moves on within a workflow task with each commit's own time."""
        self._floor_ms = max(self._floor_ms, int(workflow.now().timestamp() * 1000))
        return self._floor_ms

    def _has_work(self) -> bool:
        return bool(self._inbox) or self._forced or self._hosts_news or bool(self._asked) or must_evaluate(self._state)

    async def _wait(self) -> None:
        """Until something has come or is due. One timer at most, kept while it is early enough."""
        if self._has_work():
            if self._now_ms() - self._chain_began_ms > CHAINED_MS_MAX:
                await workflow.sleep(timedelta(milliseconds=1), summary="let signals in")
                self._chain_began_ms = self._now_ms()
            return
        due_ms = next_due_ms(self._state, self._policy)
        if due_ms is not None and self._in_vain:
            due_ms = max(due_ms, self._now_ms() + IN_VAIN_MS)
        if due_ms is not None and due_ms > self._now_ms():
            timer = self._timer
            if timer is None or not self._keeps(timer, due_ms):
                self._stop_timer()
                self._timer_due_ms = due_ms
                timer = self._timer = asyncio.create_task(self._sleep(due_ms - self._now_ms()))
            await workflow.wait_condition(lambda: self._has_work() or timer.done())
        elif due_ms is None:
            await workflow.wait_condition(self._has_work)
        self._chain_began_ms = self._now_ms()

    def _keeps(self, timer: "asyncio.Task[None]", due_ms: int) -> bool:
        """One that is early stays while it is far enough away: the next step will most likely come first, and to
        replace a timer with each step costs the server more than to wake up once in vain."""
        early_ms, left_ms = due_ms - self._timer_due_ms, self._timer_due_ms - self._now_ms()
        return not timer.done() and early_ms >= 0 and (early_ms < TIMER_EARLY_MS_MAX or left_ms >= TIMER_KEPT_MS)

    async def _sleep(self, delay_ms: int) -> None:
        await workflow.sleep(timedelta(milliseconds=delay_ms), summary="next due time")

    def _stop_timer(self) -> None:
        if self._timer is not None and not self._timer.done():
            self._timer.cancel()
        self._timer = None

    async def _listen(self) -> None:
        """Turn signals into control requests; and read the checkpoint of a resumption from an earlier one."""
        if self._asked and self._inbox.control is None:
            action, request_id = self._asked.pop(0)
            self._asks += 1
            control = await self._read_control()
            if control is None and request_id is None:
                origin = f"signal-{self._launch.execution_id}-{self._state.tick}-{self._asks}"
                control = Control.model_validate({"request_id": origin, "action": action})
            self._take_control(control)
        control = self._inbox.control
        if control is not None and control.action == "resume" and self._inbox.rewind is None:
            wanted = control.checkpoint_id
            if wanted is not None and wanted != self._state.latest_checkpoint and self._state.paused:
                self._inbox.rewind = await self._rewind_to(wanted)

    def _take_control(self, control: Control | None) -> None:
        if control is not None and control.request_id != self._state.control_seen:
            self._inbox.control = control

    async def _read_control(self) -> Control | None:
        request = CheckpointRequest(
            tenant=self._launch.tenant, execution_id=self._launch.execution_id, checkpoint_id=""
        )
        call = (activity_names.READ_CONTROL, request)
        found: Control | None = await self._patiently(call, call, Control | None, "what was asked")
        return found

    async def _rewind_to(self, checkpoint_id: str) -> Rewind:
        request = CheckpointRequest(
            tenant=self._launch.tenant, execution_id=self._launch.execution_id, checkpoint_id=checkpoint_id
        )
        call = (activity_names.LOAD_CHECKPOINT, request)
        point: Checkpoint = await self._patiently(call, call, Checkpoint, "the checkpoint to resume from")
        kept = set(point.completed)
        state = self._state
        again = tuple(
            task.id
            for task, run in zip(state.specs, state.tasks, strict=True)
            if run.phase is Phase.COMPLETED and task.id not in kept
        )
        return Rewind(checkpoint_id=checkpoint_id, epoch=state.epoch + 1, tasks=again)

    async def _evaluate(self) -> None:
        """Have conditions and lists evaluated: the answer is recorded, so that every replay sees the same."""
        if not must_evaluate(self._state):
            return
        call = (activity_names.EVALUATE_TASKS, evaluation_request(self._state))
        found: Evaluation = await self._patiently(call, call, Evaluation, "conditions, lists and triggers")
        self._inbox.learn(found)

    async def _begin(self) -> None:
        """Agents whose hosts are there already are bound before the first tick, and by the same activity."""
        request = self._bind_request(None, 0.0)
        burst = Burst(self._state, self._policy, None, 0, alone=bool(self._asked), bind_request=request)
        handed = HandedTick(burst)
        try:
            outcome: TickOutcome = await workflow.execute_local_activity(
                activity_names.BEGIN_EXECUTION,
                handed,
                result_type=TickOutcome,
                start_to_close_timeout=LOCAL_TICK,
                retry_policy=LOCAL_RETRIES,
                summary="find hosts for the agents; tick 1",
            )
        except FailureError as error:
            burst.end()
            burst.adopt(())
            if _is_final(error):
                raise
            await self._bind()
            return
        burst.end()
        self._forced = False
        self._after(burst, outcome, Inbox())

    async def _tick(self) -> None:
        taken, self._inbox, self._forced, forced = self._inbox, Inbox(), False, self._forced
        taken.allocation_error, self._hosts_news = self._allocation_error, False
        decision = decide(self._state, self._policy, taken, self._now_ms())
        self._in_vain = decision.empty and not forced
        if self._in_vain:
            decision.change.undo.rollback()
            return
        burst = self._burst(decision)
        outcome = await self._commit(burst)
        if decision.hosts_came:
            self._waiting_in_vain = False
        self._after(burst, outcome, taken)

    def _after(self, burst: Burst, outcome: TickOutcome, taken: Inbox) -> None:
        self._floor_ms = max(self._floor_ms, outcome.now_ms)
        self._adopt(burst, outcome, taken)
        unbound = self._state.unbound_agents()
        if unbound and not self._state.closed and not self._waiting_in_vain:
            self._allocate(unbound)
        if self._state.errands or self._errands.under_way:
            self._errands.keep_up(self._state, none_new=self._is_long())
        workflow.set_current_details(progress_table(self._state))

    def _inbox_errand(self, outcome: ErrandOutcome) -> None:
        self._inbox.errands.append(outcome)

    def _burst(self, decision: Decision) -> Burst:
        length = workflow.info().get_current_history_length()
        if length != self._history_length:
            self._history_length, self._base_tick = length, self._state.tick - 1
        return Burst(self._state, self._policy, decision, self._base_tick, alone=bool(self._asked))

    async def _commit(self, burst: Burst) -> TickOutcome:
        handed = HandedTick(burst)
        try:
            outcome: TickOutcome = await self._patiently(
                (activity_names.COMMIT_TICK, handed),
                (activity_names.COMMIT_TICK_PATIENTLY, burst.proposal),
                TickOutcome,
                tick_summary(burst.proposal.delta),
            )
        finally:
            burst.end()
        return outcome

    def _adopt(self, burst: Burst, outcome: TickOutcome, taken: Inbox) -> None:
        """Make the state what the journal says. Usually that is what was proposed; then nothing is left to do."""
        kept, stored = burst.adopt(outcome.ticks)
        for delta in kept:
            self._learn(delta)
        if not kept:
            taken.batches.extend(self._inbox.batches)
            taken.bindings.extend(self._inbox.bindings)
            taken.external.extend(self._inbox.external)
            taken.errands.extend(self._inbox.errands)
            taken.circuits.extend(self._inbox.circuits)
            taken.control = self._inbox.control or taken.control
            self._inbox = taken
        for text in stored:
            delta = Delta.model_validate_json(text)
            apply_delta(self._state, delta)
            self._learn(delta)
        if not kept or burst.bind_request is not None:
            # A replay has not opened the burst that begins an execution: what that kept must decide nothing here.
            self._inbox.leave_out_settled(self._state)
        self._inbox.batches.extend(outcome.events)
        self._inbox.circuits.extend(outcome.circuits)
        self._take_control(outcome.control)
        self._forced = self._forced or outcome.more or not outcome.ticks

    def _learn(self, delta: Delta) -> None:
        self._error = delta.error or self._error
        if delta.bound:
            self._allocation_error = None

    async def _patiently(self, local: tuple[str, Any], regular: tuple[str, Any], answer: Any, summary: str) -> Any:
        """A local activity; after a few tries a regular one, which waits as long as it takes."""
        try:
            return await workflow.execute_local_activity(
                *local,
                result_type=answer,
                start_to_close_timeout=LOCAL_TICK,
                retry_policy=LOCAL_RETRIES,
                summary=summary,
            )
        except FailureError as error:
            if _is_final(error):
                raise
        return await workflow.execute_activity(
            *regular,
            result_type=answer,
            start_to_close_timeout=PATIENT_TICK,
            retry_policy=PATIENT_RETRIES,
            summary=summary,
        )

    # Agents ----------------------------------------------------------------------------------------------------

    def _bind_request(self, agent_ids: tuple[str, ...] | None, wait_seconds: float) -> BindRequest:
        return BindRequest(
            tenant=self._launch.tenant,
            execution_id=self._launch.execution_id,
            roles=self._launch.plan.roles,
            agent_ids=agent_ids,
            bound={a.agent_id: a.host_id for _, a in sorted(self._state.agents.items()) if a.host_id is not None},
            wait_seconds=wait_seconds,
        )

    async def _bind(self) -> None:
        """Agents whose hosts are there already are bound before the first tick."""
        call = (activity_names.BIND_AGENTS, self._bind_request(None, 0.0))
        result: BindResult = await self._patiently(call, call, BindResult, "find hosts for the agents")
        self._inbox.bindings.extend(result.bindings)

    def _allocate(self, agent_ids: tuple[str, ...]) -> None:
        """Have hosts started for these agents, while the execution goes on with the others."""
        if self._allocation is None or self._allocation.done():
            self._allocation = asyncio.create_task(self._allocate_now(agent_ids))

    async def _allocate_now(self, agent_ids: tuple[str, ...]) -> None:
        try:
            result: BindResult = await workflow.execute_activity(
                activity_names.ALLOCATE_AGENTS,
                self._bind_request(agent_ids, self._launch.allocation_seconds),
                result_type=BindResult,
                start_to_close_timeout=timedelta(seconds=self._launch.allocation_seconds + 15),
                heartbeat_timeout=timedelta(seconds=10),
                # Waiting for a host ends by itself. What fails here is the worker or a server, and that passes.
                retry_policy=PATIENT_RETRIES,
                summary=f"hosts for {len(agent_ids)} agents",
            )
        except ActivityError as error:
            self._allocation_error = ("RESOURCE_ALLOCATION_FAILED", str(error.cause or error)[:500])
            self._hosts_news = self._waiting_in_vain = True
            return
        self._inbox.bindings.extend(result.bindings)
        if result.missing:
            self._hosts_news = self._waiting_in_vain = True
            self._allocation_error = _why_missing(result, self._launch.allocation_seconds)

    def _is_long(self) -> bool:
        info = workflow.info()
        return (
            info.is_continue_as_new_suggested()
            or info.get_current_history_length() > self._launch.history_events_max
            or info.get_current_history_size() > HISTORY_BYTES_MAX
        )

    def _may_continue_as_new(self) -> bool:
        """Errands that are under way end first, and above the size no new one begins: the next run does those."""
        idle = (self._allocation is None or self._allocation.done()) and not self._errands.under_way
        idle = idle and not self._inbox.errands
        return (
            self._is_long() and idle and not self._state.closed and not self._asked and self._state.status in _CARRIED
        )


def _why_missing(result: BindResult, waited_seconds: float) -> tuple[str, str]:
    """Code and message for `error_details`."""
    if result.problems:
        worst = result.problems[0]
        others = f" (and {len(result.missing) - 1} more agents)" if len(result.missing) > 1 else ""
        return worst.code, f"{worst.agent_id}{others}: {worst.message}"
    names = ", ".join(result.missing[:5])
    return (
        "AGENT_ALLOCATION_TIMEOUT",
        f"no host came in {waited_seconds:g} s for {len(result.missing)} agents: {names}",
    )


_CARRIED = (ExecutionStatus.EXECUTING, ExecutionStatus.PAUSED)


def _is_final(error: FailureError) -> bool:
    """Trying again would not help. A local activity's failure comes bare; a regular one's is wrapped."""
    cause = error.cause if isinstance(error, ActivityError) else error
    return isinstance(cause, CancelledError) or bool(getattr(cause, "non_retryable", False))
