"""Are our packages really ours?

The engine's folders are top-level import packages with everyday names, and another distribution may
install one of the same name: `llama-index-workflows`, for one, installs `workflows`. Which of the two an
import gets depends on the order of `sys.path`. Every process of the engine calls `check_packages` before
it does anything else, so that a clash shows as one clear message and not as an AttributeError deep
inside.
"""

import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from engine.errors import ConfigurationError

APPLICATION_PACKAGES = ("engine", "activities", "cli", "gateway", "hooks", "planner", "worker", "workflows")
AGENT_PACKAGE = "orchestration_agent"
OWN_DISTRIBUTIONS = frozenset({"orchestration-engine", "orchestration-agent"})

_ROOT = Path(__file__).resolve().parent.parent


def check_packages(root: Path = _ROOT) -> None:
    """Raise ConfigurationError, naming the intruder, when one of our packages resolves outside our tree."""
    clashes = [_find_clash(name, (root,)) for name in APPLICATION_PACKAGES]
    # The agents' package is a distribution of its own: under sdk/ in a work tree, beside us when installed.
    clashes.append(_find_clash(AGENT_PACKAGE, (root / "sdk" / "src", root)))
    found = [clash for clash in clashes if clash is not None]
    if found:
        raise ConfigurationError("; ".join(found), packages=found)


def locate_package(name: str) -> Path | None:
    """The package's folder, or the module's file; None when nothing has that name. Imports nothing."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.origin is None:
        # A folder without __init__.py is a namespace package, possibly of several folders.
        return next((Path(folder).resolve() for folder in spec.submodule_search_locations or ()), None)
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.name == "__init__.py" else origin


def _find_clash(name: str, expected: Sequence[Path]) -> str | None:
    location = locate_package(name)
    if location is None:
        return f"package {name!r} is not importable: run `make setup`"
    if location.parent in expected:
        return None
    return (
        f"package {name!r} is imported from {location}, not from {expected[0]}: "
        f"{_describe_owner(name)}; remove that, or run `make setup` for an environment of our own"
    )


def _describe_owner(name: str) -> str:
    owners = sorted(set(metadata.packages_distributions().get(name, ())) - OWN_DISTRIBUTIONS)
    if not owners:
        return "a file or folder of that name comes first on the import path"
    return f"the distribution {', '.join(owners)} installs a package of the same name"
