"""Network: a task starts a conversation among the agents of its role, who send messages to each other.

A peer has one turn at a time. A turn takes the messages that wait for it, and its result says the peer's new state and
what it sends. What a turn sends goes into the recipients' boxes in the tick that takes the result in: so each message
takes effect once, and what one peer sends another arrives in the order in which it was sent.

On the board, for each conversation: `net` (counts), `box/<n>` ([first, next] of what waits for peer n),
`m/<n>/<number>` (one waiting message: [id, sender, hops, at, body]), `state/<n>`, `gone/<n>` (failed for good).
"""

from collections.abc import Iterable
from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.kernel import Submission
from engine.contracts.limits import NOTE_BYTES_MAX
from engine.contracts.patterns.network import Conversation, NetworkConfig
from engine.expressions import Expression, ExpressionError, holds, parse
from engine.topology import Topology
from workflows.kernel.desk import Desk, NoRoomError
from workflows.kernel.policy import Policy
from workflows.kernel.state import RunState
from workflows.policies.assembly import (
    ERROR,
    Assembly,
    Budget,
    due_ms,
    heard_by_task,
    is_failing,
    size_bytes_of,
    take_ready,
    taken_over,
)
from workflows.policies.routing import Outgoing, Problem, Refused, read_turn

NO_ROOM: Final = "TOO_MANY_MEMBERS"
PEER_FAILED: Final = "PEER_FAILED"
DEADLINE: Final = "CONVERSATION_TIMEOUT"
GOAL_MISSED: Final = "GOAL_NOT_REACHED"

PEERS_SHOWN_MAX: Final = 100
RECIPIENTS_SHOWN_MAX: Final = 20
STATES_BYTES_MAX: Final = 256 * 1024
"""States that a conversation's result holds; each is also the result of its peer's last turn."""

NOTE_MESSAGES_BYTES_MAX: Final = NOTE_BYTES_MAX // 2


class NetworkPolicy(Policy):
    """Delivers messages and finds the end of each conversation."""

    coordinates = True

    def __init__(self) -> None:
        self._config: NetworkConfig | None = None
        self._talks: dict[str, tuple[Conversation, Topology, Expression | None]] = {}

    def react(self, desk: Desk) -> None:
        take_ready(desk)
        heard = heard_by_task(desk)
        budget = Budget()
        for i in taken_over(desk.state):
            talk, topology, goal = self._talk(desk.state, i)
            assembly = Assembly(desk, i, topology.members, budget)
            if assembly.is_given_up():
                continue
            try:
                Exchange(assembly, talk, topology, goal).proceed(heard.get(i, ()))
            except NoRoomError as error:
                assembly.give_up(NO_ROOM, str(error))
        take_ready(desk)  # what waited for a task that is over now

    def next_due_ms(self, state: RunState) -> int | None:
        found: list[int] = []
        for i in taken_over(state):
            head = state.board.get(f"{state.specs[i].id}/net")
            if head is None or head["more"] or is_failing(state, i):
                return 0
            seconds = self._talk(state, i)[0].seconds
            if seconds is not None:
                found.append(due_ms(state, head["at_ms"], head["paused_ms"], int(seconds * 1000)))
        return min(found, default=None)

    def _talk(self, state: RunState, i: int) -> tuple[Conversation, Topology, Expression | None]:
        name = state.specs[i].id
        if self._config is None:
            self._config = NetworkConfig.model_validate(state.launch.pattern_config)
        if name not in self._talks:
            own = name in self._config.conversations
            talk: Conversation = self._config.conversation(name) if own else self._config
            members = [agent.agent_id for agent in state.agents_of(state.specs[i].role)]
            goal = None if talk.goal is None else parse(talk.goal)
            self._talks[name] = talk, Topology(talk.topology, members), goal
        return self._talks[name]


class Exchange:
    """One conversation, in one tick."""

    def __init__(self, assembly: Assembly, talk: Conversation, topology: Topology, goal: Expression | None) -> None:
        self.peers = assembly
        self.desk = assembly.desk
        self.talk = talk
        self.topology = topology
        self.goal = goal
        head = assembly.get("net")
        if head is None:
            head = {"turns": 0, "sent": 0, "refused": 0, "started": 0, "busy": 0, "waiting": 0, "gone": 0,
                    "more": True, "at_ms": self.desk.now_ms, "paused_ms": assembly.state.paused_ms}  # fmt: skip
        self.head: dict[str, Any] = dict(head)

    def proceed(self, heard: Iterable[tuple[int, int]]) -> None:
        news = False
        for n, j in heard:
            self.head["busy"] -= 1
            news = True
            self._hear(n, self.peers.state.submitted[j])
            if self.head["gone"] and self.talk.on_peer_failure == "fail":
                return
        if news and self._goal_is_reached():
            self._complete("goal")
        elif self._is_overdue():
            self._end_at_deadline()
        else:
            self._start_peers()
            self._deliver()
            if not self.head["busy"] and not self.head["more"]:
                self._end_quiet()
        if self.desk.is_submitted(self.peers.i) and not self.peers.get(ERROR):
            self.peers.post("net", self.head)

    # Turns ---------------------------------------------------------------------------------------------------

    def _starters(self) -> tuple[int, ...] | range:
        start = self.talk.start
        if isinstance(start, list):
            found = (self.topology.position(name) for name in start)
            return tuple(at for at in found if at is not None)
        return range(len(self.topology) if start == "all" else 1)

    def _start_peers(self) -> None:
        starters = self._starters()
        while self.head["started"] < len(starters) and not self.peers.budget.spent and self._has_turns():
            n = starters[self.head["started"]]
            self.head["started"] += 1
            if self.peers.task_of(n) is None:  # a message may have come first
                self._turn(n, [])

    def _deliver(self) -> None:
        """Idle peers with waiting messages take a turn, in the order of their numbers."""
        more = self.head["started"] < len(self._starters())
        if self.head["waiting"] and self._has_turns():
            for n in range(len(self.topology)):
                box = self.peers.get(f"box/{n}")
                if box is None or not self.peers.is_idle(n):
                    continue
                if self.peers.budget.spent or not self._has_turns():
                    more = True
                    break
                messages = self._take_out(n, box)
                if messages:
                    self._turn(n, messages)
        self.head["more"] = more and self._has_turns()

    def _has_turns(self) -> bool:
        return bool(self.head["turns"] < self.talk.turns_max)

    def _turn(self, n: int, messages: list[dict[str, Any]]) -> None:
        self.head["turns"] += 1
        self.head["busy"] += 1
        note = {"turn": self.head["turns"], "state": self.peers.get(f"state/{n}"), "messages": messages}
        self.peers.call(n, note, {"network": self._about(n)})

    def _about(self, n: int) -> dict[str, Any]:
        """What stays the same from turn to turn."""
        neighbours = self.topology.of(n)
        names = [self.topology.members[other] for other in neighbours[:PEERS_SHOWN_MAX]]
        return {"peer": self.topology.members[n], "neighbours": names, "neighbours_total": len(neighbours),
                "peers_total": len(self.topology)}  # fmt: skip

    def _take_out(self, n: int, box: list[int]) -> list[dict[str, Any]]:
        """The next messages for a peer, as far as one note holds them; what is too old is dropped."""
        first, end = box
        taken: list[dict[str, Any]] = []
        room = NOTE_MESSAGES_BYTES_MAX
        while first < end and len(taken) < self.talk.batch_max:
            key = f"m/{n}/{first}"
            number, sender, hops, at_ms, body = self.peers.get(key)
            name = self.topology.members[sender]
            if self._is_expired(at_ms):
                self._refuse(sender, Problem(Refused.EXPIRED, "not delivered in time", self.topology.members[n]))
            else:
                message = {"id": number, "from": name, "hops": hops, "body": body}
                room -= size_bytes_of(message)
                if room < 0 and taken:
                    break
                taken.append(message)
            self.peers.post(key, None)
            self.head["waiting"] -= 1
            first += 1
        self.peers.post(f"box/{n}", [first, end] if first < end else None)
        return taken

    def _is_expired(self, at_ms: int) -> bool:
        seconds = self.talk.message_seconds
        return seconds is not None and at_ms + seconds * 1000 < self._now_unpaused_ms()

    def _now_unpaused_ms(self) -> int:
        return self.desk.now_ms - self.peers.state.paused_ms

    # Results -------------------------------------------------------------------------------------------------

    def _hear(self, n: int, said: Submission) -> None:
        if said.failed:
            self._lose(n, said)
            return
        if said.result_ref is not None:
            self._refuse(n, Problem(Refused.TOO_LARGE, "the turn's whole result is too large"))
            return
        turn = read_turn(said.result, n, self.topology, self.talk)
        if turn.has_state:
            self.peers.post(f"state/{n}", turn.state)
        for problem in turn.problems:
            self._refuse(n, problem)
        for message in turn.outgoing:
            self._send(n, message, said.at_ms)

    def _lose(self, n: int, said: Submission) -> None:
        name = self.topology.members[n]
        self.head["gone"] += 1
        if self.talk.on_peer_failure == "fail":
            self.peers.give_up(PEER_FAILED, f"{name} failed with {said.code}: {said.message}"[:2_000])
            return
        self.peers.post(f"gone/{n}", said.code)
        box = self.peers.get(f"box/{n}")
        if box is not None:
            for number in range(*box):
                sender = self.peers.get(f"m/{n}/{number}")[1]
                self._refuse(sender, Problem(Refused.PEER_GONE, f"it failed with {said.code}", name))
                self.peers.post(f"m/{n}/{number}", None)
            self.head["waiting"] -= box[1] - box[0]
            self.peers.post(f"box/{n}", None)

    def _send(self, sender: int, message: Outgoing, at_ms: int) -> None:
        went: list[int] = []
        first_id = self.head["sent"] + 1
        for n, hops in message.recipients.items():
            problem = self._obstacle(n)
            if problem is not None:
                self._refuse(sender, problem)
                continue
            first, end = self.peers.get(f"box/{n}") or (0, 0)
            self.head["sent"] += 1
            self.head["waiting"] += 1
            entry = [self.head["sent"], sender, hops, self._now_unpaused_ms(), message.body]
            self.peers.post(f"m/{n}/{end}", entry)
            self.peers.post(f"box/{n}", [first, end + 1])
            went.append(n)
        if went:
            self.desk.say(
                AuditEventType.MESSAGE_SENT,
                at_ms,
                task_id=self.peers.name,
                agent_id=self.topology.members[sender],
                to=[self.topology.members[n] for n in went[:RECIPIENTS_SHOWN_MAX]],
                recipients=len(went),
                message_id=first_id,
                size_bytes=size_bytes_of(message.body),
            )

    def _obstacle(self, n: int) -> Problem | None:
        name = self.topology.members[n]
        if self.head["sent"] >= self.talk.messages_max:
            return Problem(Refused.TOO_MANY, f"{self.talk.messages_max} messages were sent", name)
        if self.peers.get(f"gone/{n}") is not None:
            return Problem(Refused.PEER_GONE, "its turn failed for good", name)
        first, end = self.peers.get(f"box/{n}") or (0, 0)
        if end - first >= self.talk.mailbox_max:
            return Problem(Refused.MAILBOX_FULL, f"{end - first} messages wait for it", name)
        return None

    def _refuse(self, sender: int, problem: Problem) -> None:
        self.head["refused"] += 1
        self.desk.say(
            AuditEventType.MESSAGE_REFUSED,
            task_id=self.peers.name,
            agent_id=self.topology.members[sender],
            to=problem.to,
            reason=problem.why.value,
            message=problem.message,
        )

    # Ends ----------------------------------------------------------------------------------------------------

    def _goal_is_reached(self) -> bool:
        if self.goal is None:
            return False
        names = {"states": self._states(), "messages": self.head["sent"], "turns": self.head["turns"]}
        try:
            return holds(self.goal, names)
        except ExpressionError:
            return False  # states that it speaks of may be missing yet

    def _is_overdue(self) -> bool:
        seconds, state = self.talk.seconds, self.peers.state
        if seconds is None or state.paused:
            return False
        return due_ms(state, self.head["at_ms"], self.head["paused_ms"], int(seconds * 1000)) <= self.desk.now_ms

    def _end_at_deadline(self) -> None:
        if self.talk.on_deadline == "fail":
            self._say_ended("deadline")
            self.peers.give_up(DEADLINE, f"not quiet after {self.talk.seconds:g} s")
        else:
            self._complete("deadline")

    def _end_quiet(self) -> None:
        """Nobody is at work, and nothing waits (or no turns are left to take it)."""
        how = "turn_limit" if self.head["waiting"] or self.head["started"] < len(self._starters()) else "quiescence"
        if self.goal is not None and self.talk.on_deadline == "fail":
            self._say_ended(how)
            self.peers.give_up(GOAL_MISSED, f"the conversation ended ({how}) without its goal")
        else:
            self._complete(how)

    def _complete(self, how: str) -> None:
        self._say_ended(how)
        states, room = {}, STATES_BYTES_MAX
        for name, state in self._states().items():
            room -= size_bytes_of(state) + len(name)
            if room >= 0:
                states[name] = state
        result: dict[str, Any] = {"states": states, "ended": how, **self._counts()}
        left_out = len(self._states()) - len(states)
        if left_out:
            result["states_left_out"] = left_out
        self.peers.dismiss()
        self.desk.resolve(self.peers.i, result)

    def _say_ended(self, how: str) -> None:
        self.desk.say(AuditEventType.CONVERSATION_ENDED, task_id=self.peers.name, reason=how, **self._counts())

    def _counts(self) -> dict[str, int]:
        return {"turns": self.head["turns"], "messages": self.head["sent"], "refused": self.head["refused"],
                "undelivered": self.head["waiting"]}  # fmt: skip

    def _states(self) -> dict[str, Any]:
        board, name = self.peers.state.board, self.peers.name
        keys = ((member, f"{name}/state/{n}") for n, member in enumerate(self.topology.members))
        return {member: board[key] for member, key in keys if key in board}
