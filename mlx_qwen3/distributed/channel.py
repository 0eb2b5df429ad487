"""TCP connections beside MLX's own, between rank 0 and each other rank: plain values, and signs of life.

Messages are JSON objects, one a line. An empty line every second says that the process lives, also while it
computes; collectives themselves tell nothing of a rank that has stopped.
"""

from __future__ import annotations

import hmac
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mlx_qwen3.errors import DistributedError

Message = dict[str, Any]
BEAT_SECONDS = 1.0
SEND_SECONDS = 5
CONNECT_SECONDS = 30.0
MOST_BYTES = 64 * 2**20  # of one message


class Connection:
    """One end. Messages arrive in `inbox`; None there is its end.

    Attributes:
        rank: Of the process at the other end.
        host: Its name, for messages to people.
        heard: When something last came, by `time.monotonic()`.
        is_open: False once the other end is gone.
    """

    def __init__(self, connected: socket.socket, rank: int, host: str):
        self.rank, self.host = rank, host
        self.inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.heard = time.monotonic()
        self.is_open = True
        self.sink: Callable[[Message], bool] = lambda message: False  # noqa: ARG005  # all go to the inbox
        """Told of each message first, on the reading thread; True keeps it from the inbox."""
        self._socket, self._lock = connected, threading.Lock()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.settimeout(None)
        # A rank that has stopped reads nothing: writing to it must not wait for ever.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        for work in (self._read, self._beat):
            threading.Thread(target=work, name=f"mlx_qwen3 rank {rank}", daemon=True).start()

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host})"

    def send(self, message: Message) -> None:
        """Send a message; does nothing once the other end is gone, which `is_open` tells."""
        self._write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def ask(self, timeout: float | None = None) -> Message:
        """The next message. Raises DistributedError if none comes, at all or in `timeout` seconds."""
        try:
            message = self.inbox.get(timeout=timeout)
        except queue.Empty:
            raise DistributedError(f"{self} did not answer within {timeout:.0f} s") from None
        if message is None:
            raise DistributedError(f"{self} ended, or the connection to it was lost")
        return message

    def ask_soon(self, seconds: float) -> Message | None:
        """The next message if it comes within `seconds`. Raises DistributedError if there will be none."""
        try:
            message = self.inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if message is None:
            raise DistributedError(f"{self} ended, or the connection to it was lost")
        return message

    def close(self) -> None:
        """Close it; the other end sees that."""
        self.is_open = False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _write(self, data: bytes) -> None:
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            self.is_open = False

    def _beat(self) -> None:
        while self.is_open:
            time.sleep(BEAT_SECONDS)
            self._write(b"\n")

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                while line := stream.readline(MOST_BYTES):
                    self.heard = time.monotonic()
                    if line.strip() and not self.sink(message := json.loads(line)):
                        self.inbox.put(message)
        except (OSError, ValueError):
            pass
        self.is_open = False
        self.inbox.put(None)


class Listener:
    """Where rank 0 waits for the others. `token` is what they must know."""

    def __init__(self, token: bytes):
        self._token = token
        self._socket = _listening()
        self.port: int = self._socket.getsockname()[1]

    def accept(self, count: int) -> list[Connection]:
        """Wait for `count` ranks, in order of rank. Raises DistributedError if they do not come."""
        found: dict[int, Connection] = {}
        deadline = time.monotonic() + CONNECT_SECONDS
        try:
            while len(found) < count:
                self._socket.settimeout(max(0.1, deadline - time.monotonic()))
                connected, _ = self._socket.accept()
                connection = self._greet(connected)
                if connection is not None:
                    found[connection.rank] = connection
        except TimeoutError:
            missing = [str(rank) for rank in range(1, count + 1) if rank not in found]
            raise DistributedError(
                f"rank {', '.join(missing)} did not connect to rank 0 within {CONNECT_SECONDS:.0f} s; a "
                "firewall may block TCP between the machines"
            ) from None
        finally:
            self._socket.close()
        return [found[rank] for rank in sorted(found)]

    def _greet(self, connected: socket.socket) -> Connection | None:
        """The connection of a rank that knows the token; a stranger's is closed."""
        try:
            connected.settimeout(5)
            greeting = _read_line(connected)
            if hmac.compare_digest(bytes.fromhex(str(greeting["token"])), self._token):
                return Connection(connected, int(greeting["rank"]), str(greeting["host"])[:64])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        connected.close()
        return None


def connect(addresses: list[str], port: int, token: bytes, rank: int) -> Connection:
    """Connect to rank 0 at the first of `addresses` that answers. Raises DistributedError."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        for address in addresses:
            with suppress(OSError):
                connected = socket.create_connection((address, port), timeout=3)
                greeting = {"token": token.hex(), "rank": rank, "host": socket.gethostname()}
                connected.sendall(json.dumps(greeting).encode() + b"\n")
                return Connection(connected, 0, address)
        if time.monotonic() > deadline:
            raise DistributedError(
                f"rank 0 cannot be reached at {' or '.join(addresses)}, port {port}; a firewall may block TCP"
            )
        time.sleep(0.2)


def _listening() -> socket.socket:
    try:
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    except (OSError, ValueError):  # a machine without IPv6
        return socket.create_server(("", 0), backlog=64)


def _read_line(connected: socket.socket) -> Message:
    """The first line, and not a byte after it."""
    data = b""
    while not data.endswith(b"\n") and len(data) < 1024:
        byte = connected.recv(1)
        if not byte:
            break
        data += byte
    message: Message = json.loads(data)
    return message
