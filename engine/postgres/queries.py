"""The SQL of this package: one file a concern under `sql/`, each statement headed by `-- name: NAME`."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from engine.errors import ConfigurationError

_FOLDER = Path(__file__).parent / "sql"
_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def load_queries(folder: Path = _FOLDER) -> Mapping[str, str]:
    """All statements as `file.name`; read once, where the database is composed."""
    queries: dict[str, str] = {}
    for path in sorted(folder.glob("*.sql")):
        _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            key = f"{path.stem}.{name}"
            if key in queries:
                raise ConfigurationError(f"{path}: two statements are named {name}")
            queries[key] = text.strip()
    return MappingProxyType(queries)
