"""What `relight import` records."""

from collections.abc import Callable, Sequence

from relight.engine.app.connections import clock, ready_servers
from relight.engine.importers.importing import ImportedFile, import_file
from relight.engine.importers.scanning import Scan
from relight.engine.log.topology import close, connect
from relight.engine.options import recorder_options
from relight.engine.settings import Settings


async def import_files(
    settings: Settings, scans: Sequence[Scan], *, advanced: Callable[[int], None]
) -> list[ImportedFile]:
    """Records what was scanned and is not on the stream yet; `advanced` is told the rows done."""
    async with ready_servers(settings) as (servers, _):
        client = await connect(servers.nats_url, name="relight import")
        try:
            options = recorder_options(servers, settings)
            return [
                await import_file(found, client=client, options=options, clock=clock(), advanced=advanced)
                for found in scans
            ]
        finally:
            await close(client)
