"""Two ranks in network namespaces of their own, with a cable between them that delays, loses, or is cut.

The cable is a program: each namespace has a TUN device, and what one device sends is handed to the other,
later, not always, or not at all. So TCP meets what a real link does to it. Linux, as root.
`benchmarks.distributed --cable` and `--partition` run it.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
ADDRESS = "10.213.7.{}"
SECONDS = 900
MOST_BYTES = 1 << 16


class Cable:
    """Carries IP packets between two network namespaces, which it makes and removes.

    Attributes:
        carried, lost: Packets so far.
        is_cut: Nothing is carried any more.
    """

    def __init__(self, delay: float = 0.0, loss: float = 0.0):
        """delay: seconds, one way. loss: share of the packets."""
        self.namespaces = [f"mlxq{os.getpid()}r{rank}" for rank in range(2)]
        self.carried = self.lost = 0
        self.is_cut = False
        self._delay, self._loss, self._draw = delay, loss, random.Random(0)
        self._ends: list[int] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> Cable:
        try:
            for rank, name in enumerate(self.namespaces):
                ip("netns", "add", name)
                device = f"cable{rank}"
                end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                self._ends.append(end)
                fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
                ip("link", "set", device, "netns", name)
                ip("-n", name, "addr", "add", f"{ADDRESS.format(rank + 1)}/24", "dev", device)
                ip("-n", name, "link", "set", device, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._remove()

    def start_ranks(self, arguments: list[str], folder: Path, **options: str) -> list[subprocess.Popen[str]]:
        """Start two ranks of this Python, each in its namespace."""
        ring = folder / "ring.json"
        ring.write_text(json.dumps([[f"{ADDRESS.format(rank + 1)}:{24001 + rank}"] for rank in range(2)]))
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        base = {**os.environ, "MLX_HOSTFILE": str(ring), "PYTHONPATH": path, "MLX_QWEN3_PLAIN": "1"}
        return [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, *arguments],
                env={**base, "MLX_RANK": str(rank), **options},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, name in enumerate(self.namespaces)
        ]

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []  # when due, number, end, packet
        numbers = itertools.count()
        near, far = self._ends
        other = {near: far, far: near}
        while not self._is_over.is_set():
            now = time.monotonic()
            until = max(0.0, waiting[0][0] - now) if waiting else 0.2
            readable, _, _ = select.select(self._ends, [], [], until)
            for end in readable:
                packet = _read(end)
                if packet is None:
                    continue
                if self.is_cut or self._draw.random() < self._loss:
                    self.lost += 1
                    continue
                heapq.heappush(waiting, (time.monotonic() + self._delay, next(numbers), other[end], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(waiting)
                _write(end, packet)
                self.carried += 1

    def _remove(self) -> None:
        for end in self._ends:
            os.close(end)
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _read(end: int) -> bytes | None:
    try:
        return os.read(end, MOST_BYTES)
    except OSError:  # nothing there after all
        return None


def _write(end: int, packet: bytes) -> None:
    with suppress(OSError):  # the device is gone, or its queue is full: a lost packet
        os.write(end, packet)


def make_model(folder: Path) -> Path:
    """A small model of random weights."""
    sys.path.insert(0, str(ROOT / "tests"))
    from scripted import write_byte_tokenizer
    from tiny_checkpoints import DENSE, write_checkpoint

    write_checkpoint(folder, DENSE | {"vocab_size": 320, "max_position_embeddings": 4096, "head_dim": 64})
    write_byte_tokenizer(folder)
    return folder


def run(delay: float, loss: float) -> bool:
    """All kinds of requests, over cables without and with delay and loss, and on one machine: equal?

    delay: ms, one way. loss: percent.
    """
    folder = Path(tempfile.mkdtemp())
    model = make_model(folder / "m")
    from distributed import scenarios

    from mlx_qwen3 import Engine

    with Engine(model) as engine:
        expected: dict[str, Any] = json.loads(json.dumps(scenarios.everything(engine)))
    is_right = True
    worker = str(ROOT / "tests/distributed/run_engine.py")
    for mode in ("tensor", "pipeline"):
        for late, lossy in ((0.0, 0.0), (delay, 0.0), (delay, loss)):
            with Cable(late / 1000, lossy / 100) as cable:
                since = time.perf_counter()
                ranks = cable.start_ranks([worker, str(model), mode, "everything", "{}"], folder)
                results = [rank.communicate(timeout=SECONDS) for rank in ranks]
                seconds = time.perf_counter() - since
                codes = [rank.returncode for rank in ranks]
            is_equal = codes == [0, 0] and json.loads(results[0][0]) == expected
            is_right &= is_equal
            print(
                f"{mode}, {late:g} ms and {lossy:g} % lost: {'equal' if is_equal else 'NOT EQUAL'}, "
                f"{seconds:.1f} s, {cable.carried:,} packets and {cable.lost:,} lost "
                f"{'' if is_equal else results}",
                flush=True,
            )
    return is_right


def partition(mode: str) -> None:
    """Two ranks generate; then nothing is carried any more. Both must end with a line."""
    folder = Path(tempfile.mkdtemp())
    model = make_model(folder / "m")
    with Cable(0.001) as cable:
        arguments = [str(ROOT / "tests/distributed/endless.py"), str(model), mode, "decode"]
        ranks = cable.start_ranks(arguments, folder)
        assert ranks[0].stdout is not None
        assert ranks[0].stdout.readline() == "begun\n"
        time.sleep(1)
        cable.is_cut = True
        since = time.perf_counter()
        for number, rank in enumerate(ranks):
            _, error = rank.communicate(timeout=60)
            print(f"rank {number}, {time.perf_counter() - since:.1f} s after the cut: {error.strip()}")
