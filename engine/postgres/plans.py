"""Large plans, once a tenant and content."""

from engine.contracts.kernel import ExecutionInput
from engine.errors import NotFoundError
from engine.plans import PLANS, PlanIdentity, plan_document, with_reference
from engine.postgres.pool import Connection, Database


class PostgresPlanStore:
    """Implements `engine.ports.PlanStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def plan(self, tenant: str, plan_hash: str) -> str:
        async with self._database.tenant_connection(tenant) as connection:
            document: str | None = await connection.fetchval(self._queries["plans.get"], tenant, plan_hash)
        if document is None:
            raise NotFoundError("no such plan")
        return document

    async def keep(self, connection: Connection, launch: ExecutionInput, identity: PlanIdentity) -> None:
        """In the transaction that inserts the execution, whose foreign key then holds it."""
        arguments = (launch.tenant, identity.plan_hash)
        if not await connection.fetchval(self._queries["plans.has"], *arguments):
            await connection.execute(self._queries["plans.insert"], *arguments, plan_document(launch.plan))


def plan_to_refer_to(launch: ExecutionInput) -> PlanIdentity | None:
    """The plan that is to be stored by itself; None for one that is small enough to be stored with each execution."""
    identity = PLANS.identity(launch.plan)
    return identity if identity.large else None


def launch_document(launch: ExecutionInput, refer_to: PlanIdentity | None) -> str:
    """As JSON, so that a launch can be finished by another process."""
    if refer_to is None:
        return launch.model_dump_json(exclude_defaults=True)
    return with_reference(launch.model_dump_json(exclude_defaults=True, exclude={"plan"}), refer_to.plan_hash)
