"""The operator's catalogue: read from a file, checked, and asked what it can serve."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

import yaml
from pydantic import ValidationError

from engine.contracts.catalogue import SYNTHETIC, SYNTHETIC_TYPE, AgentType, Catalogue
from engine.contracts.definition import WorkflowDefinition
from engine.errors import CapabilitiesUnavailableError, ConfigurationError
from engine.ports import HostRecord, HostStore

FILE_BYTES_MAX: Final = 1024 * 1024
LIVE_HOSTS_MAX: Final = 1_000


def load_catalogue(path: Path | None) -> Catalogue:
    """The catalogue in a YAML or JSON file, with `synthetic` in it; that alone without a file.

    A relative `python_path` is relative to the file. Raises ConfigurationError, which names the field and the remedy.
    """
    if path is None:
        return Catalogue(agents={SYNTHETIC_TYPE: SYNTHETIC})
    document = _read(path)
    try:
        catalogue = Catalogue.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(_problem(item["loc"], item["msg"]) for item in error.errors(include_url=False))
        raise ConfigurationError(f"the catalogue {path} is wrong: {problems}") from error
    if SYNTHETIC_TYPE in catalogue.agents:
        raise ConfigurationError(
            f"the catalogue {path} is wrong: agents.{SYNTHETIC_TYPE}: the name is built in; choose another"
        )
    agents = {name: _resolved(name, agent_type, path) for name, agent_type in catalogue.agents.items()}
    return Catalogue(agents={**agents, SYNTHETIC_TYPE: SYNTHETIC})


def has_capabilities(available: Sequence[str] | str, wanted: Iterable[str]) -> bool:
    """True when all that is wanted is there; "*" is everything."""
    return available == "*" or set(wanted) <= set(available)


def hosts_started_here(agent_type: AgentType | None) -> bool:
    """True for types whose host processes the engine starts itself."""
    return agent_type is not None and agent_type.entry not in ("external", "container")


def runs_in_pods(agent_type: AgentType | None) -> TypeGuard[AgentType]:
    """True for types that get pods where the allocator is Kubernetes."""
    return agent_type is not None and agent_type.entry != "external"


def check_capabilities(catalogue: Catalogue, live: Iterable[HostRecord], definition: WorkflowDefinition) -> None:
    """Raises CapabilitiesUnavailableError when a role's type is unknown or lacks a capability.

    What the catalogue says of a type counts, and what a live host that registered itself says.
    """
    live = list(live)
    problems: list[str] = []
    for role, requirement in definition.agents.items():
        offers: list[Sequence[str] | str] = [host.capabilities for host in live if requirement.type in host.types]
        known = catalogue.agents.get(requirement.type)
        if known is not None:
            offers.append(known.capabilities)
        if not offers:
            names = ", ".join(sorted({*catalogue.agents, *(name for host in live for name in host.types)}))
            problems.append(
                f"agents.{role}: no agent type {requirement.type!r} is known (known: {names}); "
                "add it to the catalogue, or start a host of that type"
            )
        elif not any(has_capabilities(offer, requirement.capabilities) for offer in offers):
            lacking = sorted(set(requirement.capabilities) - {name for offer in offers for name in offer})
            missing = ", ".join(lacking or requirement.capabilities)
            problems.append(f"agents.{role}: no agent of type {requirement.type!r} has the capabilities {missing}")
    if problems:
        raise CapabilitiesUnavailableError("; ".join(problems), errors=problems)


class CapabilityChecker:
    """`check_capabilities` with the tenant's live hosts, for the gateway."""

    def __init__(self, catalogue: Catalogue, hosts: HostStore) -> None:
        self._catalogue = catalogue
        self._hosts = hosts

    async def __call__(self, tenant: str, definition: WorkflowDefinition) -> None:
        """Raises CapabilitiesUnavailableError."""
        live: dict[str, HostRecord] = {}
        for agent_type in sorted({requirement.type for requirement in definition.agents.values()}):
            if not hosts_started_here(self._catalogue.agents.get(agent_type)):
                found = await self._hosts.live(tenant, agent_type, LIVE_HOSTS_MAX)
                live.update((host.host_id, host) for host in found)
        check_capabilities(self._catalogue, live.values(), definition)


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigurationError(f"the catalogue {path} is larger than {FILE_BYTES_MAX} bytes")
        document = yaml.safe_load(path.read_text("utf-8"))  # JSON is YAML too
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the catalogue {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"the catalogue {path} is neither YAML nor JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"the catalogue {path} must have a mapping `agents` from type to description")
    return document


def _resolved(name: str, agent_type: AgentType, path: Path) -> AgentType:
    if agent_type.python_path is None:
        return agent_type
    folder = (path.parent / agent_type.python_path).resolve()
    if not folder.is_dir():
        raise ConfigurationError(
            f"the catalogue {path} is wrong: agents.{name}.python_path: there is no folder {folder}; "
            "relative paths start at the catalogue's own folder"
        )
    return agent_type.model_copy(update={"python_path": str(folder)})


def _problem(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location)
    remedy = '; write "python:module:function", "external" or "synthetic"' if "entry" in location else ""
    return f"{where}: {message}{remedy}"
