"""A publisher of a region that is killed: records when told, and prints number and id of each event as JSON."""

import json
import sys
import time
from pathlib import Path

from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.breakers import BreakerFailed

url, spools = sys.argv[1:3]


def main() -> None:
    options = RecorderOptions(
        nats_url=url, region="eu", tenant="acme", spools=None if spools == "-" else Path(spools), announce_s=0.1
    )
    with Recorder(options) as recorder:
        print(json.dumps(recorder.publisher), flush=True)
        for line in sys.stdin:
            match line.split():
                case ["record", events]:
                    receipts = [recorder.record(BreakerFailed(service_name="api")) for _ in range(int(events))]
                    while any(receipt.pseq is None for receipt in receipts):
                        time.sleep(0.005)
                    print(json.dumps([(receipt.pseq, receipt.id) for receipt in receipts]), flush=True)
                case ["drained"]:
                    while recorder.health().exposed_events:
                        time.sleep(0.005)
                    print(json.dumps("drained"), flush=True)
                case _:
                    break


if __name__ == "__main__":
    main()
