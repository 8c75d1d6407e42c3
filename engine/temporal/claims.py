"""The argument of an execution's workflow as a payload: its plan by reference where it is large, and shared always.

The marks in a payload's metadata tell the codec, which sees bytes only, whose plan and whose execution it is. They must
say what the document says: reading is refused otherwise, so that nobody's payload reaches for another tenant's data.
"""

from typing import Any, Final

import msgspec
import orjson
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter, ToJsonOptions

from engine.contracts.kernel import ExecutionInput, KernelPlan
from engine.plans import PLANS, PlanCache, referenced_plan, with_reference

PLAN_MARK: Final = "orchestrator-plan"
"""`<tenant>/<hash>` of the plan that the argument names."""

EXECUTION_MARK: Final = "orchestrator-execution"
"""`<tenant>/<execution>` of an argument that carries a run's state on."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def mark(tenant: str, what: str) -> bytes:
    return f"{tenant}/{what}".encode()


def marked(value: bytes) -> tuple[str, str]:
    """The tenant and what of it is meant. Raises ValueError."""
    tenant, slash, what = value.decode().partition("/")
    if not slash or not tenant or not what:
        raise ValueError("a payload's mark does not name a tenant and what of it is meant")
    return tenant, what


class ClaimCheckConverter(PydanticJSONPlainPayloadConverter):
    """JSON as the SDK's converter for pydantic writes and reads it; `ExecutionInput` with a shared plan."""

    def __init__(self, options: ToJsonOptions, plans: PlanCache = PLANS) -> None:
        super().__init__(options)
        self._plans = plans

    def to_payload(self, value: Any) -> Payload | None:
        if not isinstance(value, ExecutionInput):
            return super().to_payload(value)
        metadata = {"encoding": self.encoding.encode()}
        if value.carry is not None:
            metadata[EXECUTION_MARK] = mark(value.tenant, value.execution_id)
        plan_hash = self._plans.reference(value.tenant, value.plan)
        if plan_hash is None:
            document = value.model_dump_json(exclude_unset=True)
        else:
            metadata[PLAN_MARK] = mark(value.tenant, plan_hash)
            document = with_reference(value.model_dump_json(exclude_unset=True, exclude={"plan"}), plan_hash)
        return Payload(metadata=metadata, data=document.encode())

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        if type_hint is not ExecutionInput:
            return super().from_payload(payload, type_hint)
        raw = _FIELDS.decode(payload.data)
        plan = bytes(raw.pop("plan", b"null"))
        document: dict[str, Any] = {name: orjson.loads(memoryview(value)) for name, value in raw.items()}
        _check_execution(payload, document)
        plan_mark = payload.metadata.get(PLAN_MARK)
        document["plan"] = self._plans.inline(plan) if plan_mark is None else self._shared(plan_mark, plan, document)
        return ExecutionInput.model_validate(document)

    def _shared(self, plan_mark: bytes, plan: bytes, document: dict[str, Any]) -> KernelPlan:
        tenant, plan_hash = marked(plan_mark)
        if tenant != document.get("tenant") or plan_hash != referenced_plan({"plan": orjson.loads(plan)}):
            raise ValueError("the payload's mark names another tenant or plan than its document")
        found = self._plans.find(tenant, plan_hash)
        if found is None:
            # Fails the workflow task only. It is tried again, and read anew where there is a database.
            raise LookupError(
                f"plan {plan_hash} of tenant {tenant} is not at hand: reading it takes the engine's database"
            )
        return found


def _check_execution(payload: Payload, document: dict[str, Any]) -> None:
    execution_mark = payload.metadata.get(EXECUTION_MARK)
    if execution_mark is None:
        return
    if marked(execution_mark) != (document.get("tenant"), document.get("execution_id")):
        raise ValueError("the payload's mark names another tenant or execution than its document")
