"""Ports for programs that cannot be given an open socket, and tell no port of their own choice."""

from __future__ import annotations

import random
import socket

# Below those that systems give to connections, so that none of another test takes one in between.
PORTS = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, drawn at random: tests run side by side."""
    free: list[int] = []
    for port in random.SystemRandom().sample(PORTS, 1000):
        with socket.socket() as probe:
            # As servers do: a port whose last connection has just ended is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise AssertionError("no port is free")


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]
