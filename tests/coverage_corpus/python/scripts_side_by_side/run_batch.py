#!/usr/bin/env python
import sys

from common import get_client


def main(argv):
    client = get_client()
    batch = client.messages.batches.create(requests=[])  # expect: call unguarded
    while client.messages.batches.retrieve(batch.id).processing_status != "ended":  # expect: call unguarded
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
