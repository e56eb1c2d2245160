"""Commands on `cmd.>`: one dispatcher, since of two overlapping subscriptions of a queue group either may be chosen."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from faststream.nats import NatsResponse
from faststream.nats.annotations import NatsMessage
from pydantic import BaseModel, ValidationError

from relight.engine import scope
from relight.engine.errors import IngestRefused, RequestRefused
from relight.engine.health.document import flat
from relight.engine.health.models import Health
from relight.engine.messaging.admission import Admission
from relight.engine.messaging.answering import answer, asked, refusal
from relight.engine.messaging.contents import MAX_BODY_BYTES, documents_of
from relight.engine.messaging.querying import Queries, QueryCommand
from relight.engine.messaging.subjects import command_of
from relight.engine.messaging.telemetry import MessageCounts, traceparent
from relight.engine.messaging.watermarks import WatermarkQuestion, answer_watermark
from relight.engine.rulings import Rulings
from relight.engine.tables.pools import Pool

MEBIBYTE = 1 << 20

M = TypeVar("M", bound=BaseModel)


class Commands:
    """Handles one command at a time, many at once; without `rulings` those are refused."""

    def __init__(
        self,
        *,
        pool: Pool,
        queries: Queries,
        rulings: Rulings | None,
        health: Callable[[], Awaitable[Health]],
        watch: Callable[[str], None],
        counts: MessageCounts,
    ) -> None:
        self._pool = pool
        self._queries = queries
        self._rulings = rulings
        self._health = health
        self._watch = watch
        self._counts = counts
        # Of what tenants send; below the broker's workers, so that there is always one to refuse or to say how it is.
        self._admission = Admission(
            messages=900, tenant_messages=100, total_bytes=64 * MEBIBYTE, tenant_bytes=16 * MEBIBYTE
        )

    async def obey(self, message: NatsMessage) -> NatsResponse:
        """The daemon's edge: whatever goes wrong with one command is its sender's answer and harms no other."""
        try:
            return await self._obey(message)
        except Exception as error:
            return refusal(message, error, self._counts)

    async def overhear(self, message: NatsMessage) -> None:
        """Every question for a watermark, whoever answers it: the publisher's progress is announced from now on."""
        try:
            self._watch(_parsed(WatermarkQuestion, message.body).publisher)
        except RequestRefused:
            return  # whoever answers says so

    async def _obey(self, message: NatsMessage) -> NatsResponse:
        command, tenant = command_of(message.raw_message.subject)
        size = len(message.body)
        if size > MAX_BODY_BYTES:
            raise RequestRefused("too-large", f"the command has {size} bytes, of {MAX_BODY_BYTES}")
        if tenant is None:
            return answer(await self._anybodys(command, message.body))
        with self._admission.entered(tenant, size), scope.entered(traceparent=traceparent()):
            return answer(await (self._query if command == "query" else self._rule)(message, tenant))

    async def _anybodys(self, command: str, body: bytes) -> bytes:
        if command == "watermark":
            return await answer_watermark(self._pool, _parsed(WatermarkQuestion, body))
        return flat(await self._health()).model_dump_json().encode()

    async def _query(self, message: NatsMessage, tenant: str) -> bytes:
        _, timeout_s = asked(message.headers)
        found = await self._queries.ask(_parsed(QueryCommand, message.body), tenant=tenant, timeout_s=timeout_s)
        return found.model_dump_json().encode()

    async def _rule(self, message: NatsMessage, tenant: str) -> bytes:
        if self._rulings is None:
            raise RequestRefused("unavailable", "this process records nothing: `relight up` takes rulings")
        ack, timeout_s = asked(message.headers)
        documents = documents_of(message.headers, message.body)
        if len(documents) != 1:
            raise IngestRefused("one ruling at a time: each is appended after the one before")
        ruled = await self._rulings.append(documents[0], tenant=tenant, ack=ack, timeout_s=timeout_s)
        return ruled.model_dump_json().encode()


def _parsed(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])[:80] or "body"
        raise RequestRefused("malformed", f"{where}: {fault['msg']}") from None
