"""How code came to be as it is: the complexity of each file over its revisions, and which functions change often.

Every revision is parsed and every function in it compared with the one before, so this takes the longest by far.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from examples.code_review.complexity import Measure, measure
from examples.code_review.repository import Repository, Revision

REVISIONS_MAX: Final = 600
"""The latest ones are looked at."""

FUNCTIONS_KEPT_MAX: Final = 5
"""Of each file, those that change most."""


@dataclass(slots=True)
class Trend:
    """One file over the revisions that were looked at."""

    revisions: int = 0
    first: int = 0
    last: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    """How often functions were changed after they had come, for those that change most."""


class _Path:
    """What is known of one file, revision by revision."""

    def __init__(self) -> None:
        self.trend = Trend()
        self._before: dict[str, int] = {}
        self._changes: Counter[str] = Counter()

    def take(self, now: Measure) -> None:
        if self.trend.revisions == 0:
            self.trend.first = now.total
        self.trend.revisions += 1
        self.trend.last = now.total
        after = {function.name: function.fingerprint for function in now.functions}
        self._changes.update(
            name for name, fingerprint in after.items() if self._before.get(name, fingerprint) != fingerprint
        )
        self._before = after

    def summary(self) -> dict[str, Any]:
        alive = [(name, count) for name, count in self._changes.most_common() if name in self._before]
        self.trend.changes = dict(alive[:FUNCTIONS_KEPT_MAX])
        return asdict(self.trend)


def trends(
    repository: Repository,
    paths: Sequence[str],
    progress: Callable[[float], object],
    is_cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """The `Trend` of each of these files, as JSON, and how many revisions were looked at."""
    wanted = set(paths)
    revisions: list[Revision] = [item for item in repository.revisions(".py") if item.path in wanted]
    revisions = revisions[-REVISIONS_MAX:]
    found: dict[str, _Path] = {}
    contents = repository.blobs(item.blob for item in revisions)
    for done, (revision, content) in enumerate(zip(revisions, contents, strict=True), 1):
        if is_cancelled():
            break
        measured = measure(content, fingerprints=True)
        if measured is not None:
            found.setdefault(revision.path, _Path()).take(measured)
        progress(done / len(revisions))
    return {"revisions": len(revisions), "files": {path: item.summary() for path, item in found.items()}}
