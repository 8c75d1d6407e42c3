"""The nine permissions and the four roles that bundle them.

A check is a look into a frozenset: there is no policy language to get wrong, and none to be slow.
"""

from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    WORKFLOW_CREATE = "workflow:create"
    WORKFLOW_EXECUTE = "workflow:execute"
    WORKFLOW_READ = "workflow:read"
    WORKFLOW_ADMIN = "workflow:admin"
    """Pause, resume, cancel, delete; read the operation log."""
    PATTERN_REGISTER = "pattern:register"
    PATTERN_READ = "pattern:read"
    HOOKS_MANAGE = "hooks:manage"
    HOOKS_READ = "hooks:read"
    HOOKS_EXECUTE = "hooks:execute"


_READ = frozenset({Permission.WORKFLOW_READ, Permission.PATTERN_READ, Permission.HOOKS_READ})

ROLES: Final[dict[str, frozenset[Permission]]] = {
    "admin": frozenset(Permission),
    "operator": _READ | {Permission.WORKFLOW_EXECUTE, Permission.WORKFLOW_ADMIN, Permission.HOOKS_EXECUTE},
    "developer": _READ
    | {
        Permission.WORKFLOW_CREATE,
        Permission.WORKFLOW_EXECUTE,
        Permission.PATTERN_REGISTER,
        Permission.HOOKS_MANAGE,
        Permission.HOOKS_EXECUTE,
    },
    "viewer": _READ,
}


def permissions_of(roles: tuple[str, ...]) -> frozenset[Permission]:
    """All that the roles allow together. A role that is not known allows nothing."""
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))
