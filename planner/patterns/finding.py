"""What a pattern's check finds."""

from typing import NamedTuple

from planner.problems import Location


class Finding(NamedTuple):
    """One thing that is wrong with a definition under its pattern, where, and what to do about it."""

    code: str
    location: Location
    message: str
