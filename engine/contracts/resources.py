"""Amounts of CPU and memory as people write them."""

import re

_CPU = re.compile(r"^\s*(\d{1,9}(?:\.\d{1,6})?)\s*(m|cores?|cpus?)?\s*$", re.IGNORECASE)
_MEMORY = re.compile(r"^\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMGTP]i?)?(B)?\s*$", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_cpu_cores(text: str | None) -> float:
    """Cores in "2 cores", "2", "1.5" or "500m"; 0.0 for None. Raises ValueError, which names the forms."""
    if text is None:
        return 0.0
    match = _CPU.match(text)
    if match is None:
        raise ValueError(f'cpu {text!r} does not parse: write "2 cores", "1.5" or "500m"')
    number, unit = float(match[1]), (match[2] or "").lower()
    return number / 1000 if unit == "m" else number


def parse_memory_bytes(text: str | None) -> int:
    """Bytes in "4GB", "512Mi", "1.5GiB" or "1073741824"; 0 for None. Raises ValueError, which names the forms."""
    if text is None:
        return 0
    match = _MEMORY.match(text)
    if match is None:
        raise ValueError(f'memory {text!r} does not parse: write "4GB", "512Mi" or a number of bytes')
    unit = (match[2] or "").lower()
    if not unit:
        return int(float(match[1]))
    return int(float(match[1]) * (1024 if unit.endswith("i") else 1000) ** _POWERS[unit[0]])
