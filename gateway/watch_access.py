"""Who may watch: tokens from the header, from the subprotocols, or from the query.

What stands in an address may be kept by proxies and browsers. So in the query only tokens count that are of no use
afterwards: tickets, which are issued for one execution, live for half a minute and work once; and JWTs that expire
within a minute, each once too.
"""

import time
from typing import Final
from uuid import UUID

from starlette.requests import HTTPConnection

from engine.errors import UnauthenticatedError
from engine.ports import WatchTickets
from engine.security.permissions import permissions_of
from engine.security.principal import Principal
from engine.security.tokens import TOKEN_LENGTH_MAX, TokenVerifier
from gateway.dependencies import GatewayDependencies
from gateway.http import bearer_token

QUERY_JWT_SECONDS: Final = 60.0


async def watching_principal(
    connection: HTTPConnection, dependencies: GatewayDependencies, execution_id: str
) -> Principal:
    """Raises UnauthenticatedError; UnavailableError when a token in the query cannot be looked up."""
    if "authorization" in connection.headers:
        return await dependencies.verifier.verify(bearer_token(connection))
    offered = connection.scope.get("subprotocols", [])
    if len(offered) == 2 and offered[0] == "bearer":
        return await dependencies.verifier.verify(str(offered[1]))
    token = connection.query_params.get("token")
    if not token or len(token) > TOKEN_LENGTH_MAX:
        raise UnauthenticatedError("no token")
    if "." in token:
        return await _short_lived(token, dependencies.verifier, dependencies.tickets)
    return await _ticket(token, dependencies.tickets, execution_id)


async def _short_lived(token: str, verifier: TokenVerifier, tickets: WatchTickets) -> Principal:
    principal = await verifier.verify(token)
    left_seconds = principal.expires_at - time.time()
    if left_seconds > QUERY_JWT_SECONDS:
        raise UnauthenticatedError("a token that lives so long may not stand in the query; ask for a watch token")
    if not await tickets.use_once(token, max(left_seconds, 1.0)):
        raise UnauthenticatedError("a token in the query counts once")
    return principal


async def _ticket(token: str, tickets: WatchTickets, execution_id: str) -> Principal:
    document = await tickets.take(token)
    if document is None or document["execution_id"] != _canonical(execution_id):
        raise UnauthenticatedError("the watch token is not known, was used, or is for another execution")
    roles = tuple(document["roles"])
    return Principal(document["subject"], document["tenant"], roles, permissions_of(roles), document["expires_at"])


def _canonical(execution_id: str) -> str:
    try:
        return str(UUID(execution_id))
    except ValueError:
        return ""
