"""How full Redis is, as producers are told it."""

from enum import StrEnum


class Pressure(StrEnum):
    OK = "ok"
    SLOW = "slow"
    """Report less often and more at once."""
    STOP = "stop"
    """Start nothing new; what is done is still reported."""
