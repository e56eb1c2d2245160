"""Loopback ports: free ones, and those a server had the last time."""

import json
import random
import socket
from pathlib import Path

from relight.engine.embedded.private import write_private

LOOPBACK = "127.0.0.1"
# Below the range from which systems give ports to outgoing connections. A port of that range can be taken by any
# client while our server is down, even by its own: one that reconnects to it again and again may be given that very
# port as its source and connect to itself, and the server finds its address in use.
PORTS = range(20_000, 30_000)


def free_port() -> int:
    """A port that was free a moment ago; whoever uses it must be ready to lose the race."""
    while not is_free(port := random.choice(PORTS)):
        pass
    return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: connections of a killed predecessor that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def kept_ports(path: Path) -> dict[str, int]:
    """The ports of the last run, without those taken by others since; empty before the first."""
    try:
        ports = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {name: port for name, port in ports.items() if is_free(port)}


def keep_ports(path: Path, ports: dict[str, int]) -> None:
    write_private(path, json.dumps(ports) + "\n")
