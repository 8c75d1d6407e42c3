"""Who is calling: what a verified token says, and nothing from anywhere else."""

from dataclasses import dataclass

from engine.errors import ForbiddenError
from engine.security.permissions import Permission


@dataclass(frozen=True, slots=True)
class Principal:
    subject: str
    tenant: str
    roles: tuple[str, ...]
    permissions: frozenset[Permission]
    expires_at: float
    """Seconds since the epoch, UTC."""

    def require(self, permission: Permission) -> None:
        if permission not in self.permissions:
            raise ForbiddenError(f"this needs the permission {permission.value}", permission=permission.value)
