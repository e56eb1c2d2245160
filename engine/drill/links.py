"""The network between regions: TCP proxies on loopback that cut, delay and heal each direction."""

import asyncio
import random
from collections.abc import Collection, Mapping
from itertools import permutations
from urllib.parse import urlsplit

from relight.engine.embedded.ports import LOOPBACK

PIECE_BYTES = 65_536
HELD_PIECES = 64
"""In flight on a connection; beyond that its sender waits, as for a full window."""


class Way:
    """From one region to another. Cut, it loses nothing: what was sent arrives when it is healed, as with TCP."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._open = asyncio.Event()
        self._open.set()
        self.delay_s = 0.0
        self.jitter_s = 0.0

    @property
    def is_cut(self) -> bool:
        return not self._open.is_set()

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()
        self.delay_s = self.jitter_s = 0.0

    async def opened(self) -> None:
        await self._open.wait()

    def lasts_s(self) -> float:
        """How long the next piece is under way."""
        return self.delay_s + self._chance.uniform(0, self.jitter_s) if self.delay_s or self.jitter_s else 0.0


class Links:
    """One `Way` for each ordered pair of regions; all their proxies obey it."""

    def __init__(self, regions: Collection[str], *, seed: object = 0) -> None:
        chance = random.Random(f"{seed} links")
        self.regions = tuple(regions)
        self._ways = {pair: Way(chance) for pair in permutations(self.regions, 2)}
        self._servers: list[asyncio.Server] = []
        self._pumps: set[asyncio.Task[None]] = set()

    def way(self, source: str, target: str) -> Way:
        return self._ways[source, target]

    def cut(self, source: str, target: str) -> None:
        """Nothing of the source arrives at the target; the other direction stays."""
        self.way(source, target).cut()

    def cut_off(self, region: str, *, outwards: bool = True, inwards: bool = True) -> None:
        """Between one region and all others."""
        for other in self.regions:
            if other != region:
                if outwards:
                    self.cut(region, other)
                if inwards:
                    self.cut(other, region)

    def slow(self, region: str, *, delay_s: float, jitter_s: float) -> None:
        """Both ways between one region and all others, each way so late."""
        for (source, target), way in self._ways.items():
            if region in (source, target):
                way.delay_s, way.jitter_s = delay_s, jitter_s

    def heal(self) -> None:
        for way in self._ways.values():
            way.heal()

    async def proxy(self, source: str, target: str, address: str) -> str:
        """Where the source finds what the target has at `address`, both `host:port`."""
        host, port = urlsplit(f"//{address}").hostname, urlsplit(f"//{address}").port

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # A handshake needs both directions.
            await self.way(source, target).opened()
            await self.way(target, source).opened()
            try:
                far_reader, far_writer = await asyncio.open_connection(host, port)
            except OSError:
                writer.transport.abort()
                return
            self._pump(reader, far_writer, self.way(source, target))
            self._pump(far_reader, writer, self.way(target, source))

        server = await asyncio.start_server(serve, LOOPBACK, 0)
        self._servers.append(server)
        return f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}"

    def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        task = asyncio.create_task(_carry(reader, writer, way))
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
    """One direction of one connection, in order; its end travels like everything else."""
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_PIECES)

    async def read() -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(PIECE_BYTES)
            except OSError:
                data = b""
            await held.put((loop.time() + way.lasts_s(), data))

    reading = asyncio.create_task(read())
    try:
        while True:
            due_s, data = await held.get()
            if (late_s := due_s - loop.time()) > 0:
                await asyncio.sleep(late_s)
            await way.opened()
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        reading.cancel()
        writer.transport.abort()


async def proxied(links: Links, servers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """`found[a][b]`: where a finds b's server."""
    found: dict[str, dict[str, str]] = {region: {} for region in links.regions}
    for source, target in permutations(links.regions, 2):
        found[source][target] = await links.proxy(source, target, servers[target])
    return found
