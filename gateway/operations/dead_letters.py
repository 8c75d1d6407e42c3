"""Use cases about what could not be delivered: look at it, send it again, throw it away."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from engine.contracts.dead_letters import DeadLetterDetail, DeadLetterPage, DeadLettersPurged, DeadLettersReplayed
from engine.contracts.limits import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from engine.contracts.model import StrictModel
from engine.ports import DeadLetterBox
from gateway.operations.operation import Caller

LetterId = Annotated[str, Field(max_length=41, pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]


class ListDeadLetters(StrictModel):
    limit: int = Field(PAGE_SIZE_DEFAULT, ge=1, le=PAGE_SIZE_MAX)
    page_token: LetterId | None = None


class DeadLetterReference(StrictModel):
    letter_id: LetterId


class ChosenDeadLetters(StrictModel):
    """Some of them by id, or all."""

    letter_ids: list[LetterId] | None = Field(None, min_length=1, max_length=500)
    all: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.all == (self.letter_ids is not None):
            raise ValueError("give letter_ids, or all")
        return self


class DeadLetterOperations:
    def __init__(self, letters: DeadLetterBox) -> None:
        self._letters = letters

    async def list(self, caller: Caller, request: ListDeadLetters) -> DeadLetterPage:
        return await self._letters.page(caller.tenant, limit=request.limit, page_token=request.page_token)

    async def get(self, caller: Caller, request: DeadLetterReference) -> DeadLetterDetail:
        return await self._letters.get(caller.tenant, request.letter_id)

    async def replay(self, caller: Caller, request: ChosenDeadLetters) -> DeadLettersReplayed:
        return await self._letters.replay(caller.tenant, request.letter_ids)

    async def purge(self, caller: Caller, request: ChosenDeadLetters) -> DeadLettersPurged:
        return await self._letters.purge(caller.tenant, request.letter_ids)
