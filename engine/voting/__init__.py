"""Votes and how they are counted. Pure: the swarm's policy, custom patterns and the API's recount share it."""

from engine.voting.ballots import Answer, Refusal, read_answer, refusal
from engine.voting.choices import InvalidBallotError, key_of, ranking_of, value_of
from engine.voting.convergence import spread, stable_share
from engine.voting.rules import Outcome, Poll, Verdict, count, settled

__all__ = [
    "Answer",
    "InvalidBallotError",
    "Outcome",
    "Poll",
    "Refusal",
    "Verdict",
    "count",
    "key_of",
    "ranking_of",
    "read_answer",
    "refusal",
    "settled",
    "spread",
    "stable_share",
    "value_of",
]
