"""A publisher to be killed: defers facts for ever, three events each, and prints the number of each that is spooled."""

import sys
from collections.abc import Iterator
from pathlib import Path

from relight.engine.recorder.items import Made
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.scope import Scope
from relight.events.breakers import BreakerFailed


def three(n: int) -> Iterator[Made]:
    for part in range(3):
        yield Made(BreakerFailed(service_name="api", details={"n": 3 * n + part}), 1_790_000_000_000_000 + n)


def main() -> None:
    nats_url, spools = sys.argv[1:]
    recorder = Recorder(RecorderOptions(nats_url=nats_url, region="eu", tenant="acme", spools=Path(spools)))
    recorder.start()
    print("publisher", recorder.publisher, flush=True)
    n = 0
    while True:
        for _ in range(20):
            recorder.defer(three, n, Scope(), 3)
            n += 1
        recorder.record(BreakerFailed(service_name="told", details={"n": -1})).wait(Ack.SPOOLED)
        print(n, flush=True)


main()
