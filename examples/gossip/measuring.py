"""What the peers measure: each the bytes of its share of the standard library's Python files."""

import sysconfig
from pathlib import Path


def measure(peer: int, peers: int) -> int:
    """The bytes of every `peers`-th file, from number `peer` on."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return sum(path.stat().st_size for path in files[peer::peers])
