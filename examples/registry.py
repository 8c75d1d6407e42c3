"""Which example shows which pattern. `make demo PATTERN=saga` runs the one that stands here for `saga`."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Example:
    """`module` is started as `python -m examples.<module>`."""

    pattern: str
    module: str
    summary: str


EXAMPLES: Final = (
    Example("supervisor", "code_review", "three agents review a git repository; one of them is killed on the way"),
    Example("supervisor", "language_model", "an article by language models, behind an endpoint of your own"),
    Example("hierarchical", "build_and_fix", "three levels build a broken repository; failures go up until solved"),
    Example("swarm", "estimation", "16 agents estimate the size of Python's standard library from samples, and vote"),
    Example("network", "gossip", "16 peers find an average by messages alone; one of their processes is killed"),
    Example("custom", "tournament", "programs play a knock-out tournament, in a pattern that is registered as data"),
    Example("saga", "bookings", "a trip with four services is undone when one of them loses its answer"),
    Example("handoff", "editing", "a scanned page goes from hand to hand, and is refused until it is right"),
)


def find_example(pattern: str) -> Example | None:
    """The example of a pattern, or the one of that name."""
    return next((example for example in EXAMPLES if pattern in (example.pattern, example.module)), None)
