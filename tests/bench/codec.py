"""Microseconds to encode an event and to decode it: validated, its subject derived and compared, its clock checked."""

import time
from collections.abc import AsyncIterator

import orjson
from measuring import Bench, Figure, alternate
from workload import REGION, TENANT, messages, observations

from relight.engine.log.chain import body_sha256
from relight.events.catalog import decode_message
from relight.events.envelope import GENESIS, Head, data_json, encode


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    count = bench.count(20_000, 4_000)
    rounds = bench.count(5, 3)
    told, facts = messages(count), list(observations(count))
    documents = [orjson.loads(message.body) for message in told]
    first = told[0]
    heads = [
        Head(
            id=document["id"],
            type=fact.TYPE,
            version=fact.VERSION,
            entity=fact.entity,
            time=first.timestamp,
            tenant=TENANT,
            region=REGION,
        )
        for document, fact in zip(documents, facts, strict=True)
    ]

    async def encode_all() -> float:
        started = time.perf_counter()
        prev = GENESIS
        for pseq, (head, fact) in enumerate(zip(heads, facts, strict=True), start=1):
            data = data_json(fact)
            body = encode(head, data, source="relight://eu/p", publisher="p", pseq=pseq, prev=prev, ruling=None)
            prev = body_sha256(body)
        return (time.perf_counter() - started) / count * 1e6

    async def dump_all() -> float:
        started = time.perf_counter()
        for document in documents:
            orjson.dumps(document)
        return (time.perf_counter() - started) / count * 1e6

    async def decode_all() -> float:
        started = time.perf_counter()
        for message in told:
            decode_message(message.subject, message.body, message.timestamp_ms)
        return (time.perf_counter() - started) / count * 1e6

    async def load_all() -> float:
        started = time.perf_counter()
        for message in told:
            orjson.loads(message.body)
        return (time.perf_counter() - started) / count * 1e6

    taken = await alternate(rounds, encode=encode_all, dump=dump_all, decode=decode_all, load=load_all)
    yield Figure(
        name="encode and hash an event", unit="us", ours=taken["encode"], against="orjson.dumps", limit=taken["dump"]
    )
    yield Figure(
        name="decode and check an event", unit="us", ours=taken["decode"], against="orjson.loads", limit=taken["load"]
    )
