"""Settings that are secret, from files: what Kubernetes or Docker mounts stands in no environment and no process list.

`REDIS_URL_FILE=/run/secrets/redis-url` is `REDIS_URL` with the file's text. A variable with the value itself goes
first.
"""

import os
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from engine.errors import ConfigurationError

SUFFIX: Final = "_FILE"
BYTES_MAX: Final = 64 * 1024


class SecretFiles(PydanticBaseSettingsSource):
    """One source of settings among others."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if SecretStr not in (field.annotation, *get_args(field.annotation)):
            return None, field_name, False
        variable = f"{_variable(field, field_name, str(self.config.get('env_prefix', '')))}{SUFFIX}"
        path = os.environ.get(variable)
        return (_read(variable, Path(path)) if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _variable(field: FieldInfo, name: str, prefix: str) -> str:
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"{prefix}{name.upper()}"


def _read(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
        text = content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{variable}: cannot read {path}: {type(error).__name__}") from error
    if not text or len(content) > BYTES_MAX:
        raise ConfigurationError(f"{variable}: {path} is empty or has more than {BYTES_MAX} bytes")
    return text
