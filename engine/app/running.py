"""What `relight up` and `relight serve` run."""

from collections.abc import Callable

from relight.engine.embedded.home import HomeLock, Running
from relight.engine.errors import SettingsError
from relight.engine.running import run_service
from relight.engine.servers import embedded_servers, found_servers
from relight.engine.service import Parts
from relight.engine.settings import Settings


async def run_up(settings: Settings, announce: Callable[[Running], None]) -> list[str]:
    """Servers, projector, ingest and API in the foreground until SIGINT or SIGTERM; servers of yours are only used.

    `announce` is called once all of it answers. Gives what was cut off when it stopped. Raises `EmbeddedServerError`
    when a server of ours ends by itself.
    """
    if settings.nats_url or settings.database_url:
        async with found_servers(settings) as servers:
            return await run_service(servers, settings, Parts(), announce)
    with HomeLock(settings.home) as lock:

        def say(running: Running) -> None:
            lock.announce(running)
            announce(running)

        async with embedded_servers(settings.home) as servers:
            return await run_service(servers, settings, Parts(), say)


async def run_serve(settings: Settings, parts: Parts, announce: Callable[[Running], None]) -> list[str]:
    """Some parts, or all, for servers of yours, which are waited for as long as it takes; otherwise as `run_up`."""
    if not (settings.nats_url and settings.database_url):
        raise SettingsError(
            "relight serve needs RELIGHT_NATS_URL and RELIGHT_DATABASE_URL: set both, or let `relight up` start servers"
        )
    async with found_servers(settings) as servers:
        return await run_service(servers, settings, parts, announce, patient=True)
