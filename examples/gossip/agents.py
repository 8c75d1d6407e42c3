"""A peer of the gossip: the push-sum protocol.

Each peer holds a sum and a weight; their quotient is its estimate of the average. With each turn it adds what it was
sent, keeps half of both and sends the other half to the next of its neighbours. The sums of all peers and of all
messages together never change, as long as each message takes effect once: so a lost or repeated one would show.
"""

from typing import Any, Final

from examples.gossip.measuring import measure
from orchestration_agent import Task

SENDS: Final = 24
"""Of each peer; after that it only listens, so that all falls quiet."""


def gossip(task: Task) -> dict[str, Any]:
    """One turn. It depends on what it was told alone, so that it may run twice."""
    told, about = task.context, task.input["network"]
    state = told["state"]
    if state is None:
        number = int(about["peer"].rpartition("-")[2]) - 1
        state = {"sum": float(measure(number, about["peers_total"])), "weight": 1.0, "sent": 0}
    total, weight, sent = state["sum"], state["weight"], state["sent"]
    for message in told["messages"]:
        total += message["body"]["sum"]
        weight += message["body"]["weight"]
    if sent >= SENDS:
        return {"state": {"sum": total, "weight": weight, "sent": sent}}
    to = about["neighbours"][sent % len(about["neighbours"])]
    half = {"sum": total / 2, "weight": weight / 2}
    return {"state": {**half, "sent": sent + 1}, "messages": [{"to": to, "body": half}]}
