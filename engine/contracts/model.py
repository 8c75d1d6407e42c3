"""The base of every model that crosses a process boundary."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen and closed: an unknown field is an error at the place where it stands.

    Strict mode stands on the models that clients write, where lax coercion (`false` for an integer) hides
    mistakes; see `StrictModel`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)


class StrictModel(Model):
    """A model that clients write. Values are not coerced from other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
