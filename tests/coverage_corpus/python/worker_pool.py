"""Queues, threads, executors."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import relight
from anthropic import Anthropic

work = queue.Queue()
clients = queue.SimpleQueue()


def worker(client, name):
    while (text := work.get()) is not None:
        client.messages.create(model=name, max_tokens=1, messages=[text])  # expect: call guarded


def borrowed():
    client = clients.get()
    try:
        return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    finally:
        clients.put(client)


def main(r):
    safe = r.guarded(Anthropic()) if isinstance(r, relight.SyncRelight) else None  # expect: client guarded
    threads = [threading.Thread(target=worker, args=(relight.guarded(Anthropic()), "m")) for _ in range(3)]  # expect: client guarded
    for thread in threads:
        thread.start()
    for _ in range(2):
        clients.put(Anthropic())  # expect: client unguarded
    with ThreadPoolExecutor() as pool:
        pool.submit(borrowed)
        futures = [pool.submit(safe.messages.create, model="m", max_tokens=1, messages=[t]) for t in "ab"]  # expect: call guarded
    return futures
