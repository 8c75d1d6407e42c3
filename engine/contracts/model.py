"""The base of every model that crosses a process boundary."""

from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen and closed: an unknown field is an error at the place where it stands.

    Strict mode stands on the models that clients write, where lax coercion (`false` for an integer) hides
    mistakes; see `StrictModel`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)

    @classmethod
    def trusted(cls, **values: Any) -> Self:
        """Made without validation from values that this process computed, all required fields among them.

        As `model_construct`, which looks at every field again for aliases and defaults: a large execution makes seven
        models a task, and that was a quarter of the kernel's time.
        """
        template = _TEMPLATES.get(cls)
        if template is None:
            fields = cls.model_fields.items()
            template = _TEMPLATES[cls] = {name: f.get_default(call_default_factory=True) for name, f in fields}
        made = cls.__new__(cls)
        _set(made, "__dict__", {**template, **values})
        _set(made, "__pydantic_fields_set__", set(values))
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made


_set: Final = object.__setattr__
_TEMPLATES: Final[dict[type[Model], dict[str, Any]]] = {}
"""The fields in their order with their defaults, which are immutable in all models that are made this way."""


class StrictModel(Model):
    """A model that clients write. Values are not coerced from other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
