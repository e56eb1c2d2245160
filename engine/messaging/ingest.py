"""Events on `in.<tenant>`: CloudEvents of any language, answered once they are as certain as asked."""

from faststream.nats import NatsResponse
from faststream.nats.annotations import NatsMessage

from relight.engine import scope
from relight.engine.ingest import Ingest
from relight.engine.messaging.admission import Admission
from relight.engine.messaging.answering import answer, asked, refusal
from relight.engine.messaging.contents import documents_of
from relight.engine.messaging.subjects import tenant_of_event
from relight.engine.messaging.telemetry import MessageCounts, traceparent

MEBIBYTE = 1 << 20


class EventsTaken:
    """Handles one message at a time, many at once."""

    def __init__(self, ingest: Ingest, counts: MessageCounts) -> None:
        self._ingest = ingest
        self._counts = counts
        # Below the broker's workers, so that there is always one to refuse.
        self._admission = Admission(
            messages=2_000, tenant_messages=500, total_bytes=128 * MEBIBYTE, tenant_bytes=32 * MEBIBYTE
        )

    async def take(self, message: NatsMessage) -> NatsResponse:
        """The daemon's edge: whatever goes wrong with one message is its sender's answer and harms no other."""
        try:
            return await self._take(message)
        except Exception as error:
            return refusal(message, error, self._counts)

    async def _take(self, message: NatsMessage) -> NatsResponse:
        tenant = tenant_of_event(message.raw_message.subject)
        ack, timeout_s = asked(message.headers)
        with self._admission.entered(tenant, len(message.body)), scope.entered(traceparent=traceparent()):
            documents = documents_of(message.headers, message.body)
            if not message.reply_to:
                await self._ingest.record(documents, tenant=tenant)
                accepted = []
            else:
                accepted = await self._ingest.take(documents, tenant=tenant, ack=ack, timeout_s=timeout_s)
            self._counts.accepted.inc(len(documents))
            return answer({"accepted": [one.model_dump(mode="json") for one in accepted]})
