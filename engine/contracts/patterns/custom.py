"""Settings of the custom pattern: whatever the registered pattern's own schema allows."""

from pydantic import ConfigDict

from engine.contracts.model import StrictModel


class CustomConfig(StrictModel):
    """`pattern_config` of a custom pattern; `configuration_schema` of the registered pattern checks it."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
