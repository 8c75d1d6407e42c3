"""Use case: a token with which one execution can be watched once, for those who cannot send headers."""

import secrets
import time
from datetime import UTC, datetime
from typing import Final

from engine.contracts.model import Model
from engine.ports import ExecutionStore, WatchTickets
from gateway.operations.executions import ExecutionReference
from gateway.operations.operation import Caller

TICKET_SECONDS: Final = 30.0


class WatchTicket(Model):
    """Answer of `execution.watch_token`."""

    token: str
    expires_at: datetime
    url: str


class WatchTicketOperations:
    def __init__(self, executions: ExecutionStore, tickets: WatchTickets) -> None:
        self._executions = executions
        self._tickets = tickets

    async def issue(self, caller: Caller, request: ExecutionReference) -> WatchTicket:
        await self._executions.last_sequence(caller.tenant, request.execution_id)
        token, principal = secrets.token_urlsafe(32), caller.principal
        document = {
            "execution_id": str(request.execution_id),
            "subject": principal.subject,
            "tenant": principal.tenant,
            "roles": list(principal.roles),
            "expires_at": principal.expires_at,
        }
        await self._tickets.keep(token, document, TICKET_SECONDS)
        address = f"ws{caller.base_url.removeprefix('http')}/ws/workflows/{request.execution_id}?token={token}"
        return WatchTicket(
            token=token, expires_at=datetime.fromtimestamp(time.time() + TICKET_SECONDS, UTC), url=address
        )
