"""A publisher to be killed: records events for ever, and prints the number of each that was told SPOOLED."""

import sys
from pathlib import Path

from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.breakers import BreakerFailed

nats_url, spools = sys.argv[1:]
recorder = Recorder(RecorderOptions(nats_url=nats_url, region="eu", tenant="acme", spools=Path(spools)))
recorder.start()
print("publisher", recorder.publisher, flush=True)
n = 0
while True:
    receipts = []
    for _ in range(20):
        n += 1
        receipts.append(recorder.record(BreakerFailed(service_name="api", details={"n": n})))
    receipts[-1].wait(Ack.SPOOLED)
    print(n, flush=True)
