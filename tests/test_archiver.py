"""The archiver: all that is published is sealed as it stands on the stream, whatever ends, goes away or comes twice."""

from pathlib import Path

from archiving import Publisher, archived, archiver, sealed_once, sealed_through, stream_messages, without_holes
from stack import connected, nats_server

from relight.engine.archive.hand import SealLimits


async def test_what_is_published_is_sealed_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await publisher.publish(230)
        async with archiver(nats, folder) as (work, _):
            await sealed_through(work, 230)
            await publisher.publish(40)
            await sealed_through(work, 270)
            await publisher.publish(5)
        manifests, messages = await archived(folder)
        assert messages == await stream_messages(nats)
        assert len(messages) == 275, "what was in hand was sealed when it was stopped"
        assert without_holes(messages)
        assert all(message.message_id for message in messages)
        assert [manifest.messages for manifest in manifests][:2] == [100, 100]
        assert work.seen().missing_messages == 0


async def test_once_seals_what_is_there_and_ends_and_the_next_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        assert (await sealed_once(nats, folder)).seen().segment == 0
        await publisher.publish(30)
        assert (await sealed_once(nats, folder)).seen().sealed_seq == 30
        await publisher.publish(30)
        work = await sealed_once(nats, folder, limits=SealLimits(events=25))
        _, messages = await archived(folder)
        assert messages == await stream_messages(nats)
        assert (work.seen().segment, work.seen().sealed_seq, work.seen().messages) == (3, 60, 60)
