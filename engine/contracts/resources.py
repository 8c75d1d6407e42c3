"""Amounts of CPU and memory as people write them."""

import re

_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,9})?(?:e[+-]?[0-9]{1,2}(?![0-9]))?)"
_CPU = re.compile(rf"\s*{_NUMBER}\s*([num]|cores?|cpus?)?\s*", re.IGNORECASE)
_MEMORY = re.compile(rf"\s*{_NUMBER}\s*([KMGTPE]i?)?(B)?\s*", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_CPU_PARTS = {"n": 1e9, "u": 1e6, "m": 1e3}

CPU_CORES_MAX = 100_000_000.0
MEMORY_BYTES_MAX = 2**60
"""Above these it is a slip of the pen, and sums would not fit the database."""


def parse_cpu_cores(text: str | None) -> float:
    """Cores in "2 cores", "2", "1.5" or "500m"; 0.0 for None. Raises ValueError, which names the forms."""
    if text is None:
        return 0.0
    match = _CPU.fullmatch(text)
    if match is None:
        raise ValueError(f'cpu {text!r} does not parse: write "2 cores", "1.5" or "500m"')
    number, unit = float(match[1]), (match[2] or "").lower()
    cores = number / _CPU_PARTS.get(unit, 1)
    if cores > CPU_CORES_MAX:
        raise ValueError(f"cpu {text!r} is more than {CPU_CORES_MAX:g} cores: write less")
    return cores


def parse_memory_bytes(text: str | None) -> int:
    """Bytes in "4GB", "512Mi", "1.5GiB" or "1073741824"; 0 for None. Raises ValueError, which names the forms."""
    if text is None:
        return 0
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f'memory {text!r} does not parse: write "4GB", "512Mi" or a number of bytes')
    unit = (match[2] or "").lower()
    factor = (1024 if unit.endswith("i") else 1000) ** _POWERS[unit[0]] if unit else 1
    amount = float(match[1]) * factor
    if amount > MEMORY_BYTES_MAX:
        raise ValueError(f"memory {text!r} is more than {MEMORY_BYTES_MAX} bytes: write less")
    return int(amount)
