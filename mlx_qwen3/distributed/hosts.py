"""The file that names the machines, in the format of `mlx.distributed_config` and `mlx.launch`.

It is a list of {"ssh": name, "ips": [addresses], "rdma": [devices]}, or an object with that list as
`hosts`, a `backend` and `envs`. Beside these a host may say `memory` (GB for the model) and `python` (the
path of its Python, if it is not where this machine's is).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_qwen3.distributed.plan import MOST_RANKS
from mlx_qwen3.errors import DistributedError
from mlx_qwen3.files import read_bytes

RING, JACCL, JACCL_RING = "ring", "jaccl", "jaccl-ring"
BACKENDS = (RING, JACCL, JACCL_RING)
LOCAL = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 2**20
EXAMPLE = '[{"ssh": "mac1.local", "ips": ["10.0.0.1"]}, {"ssh": "mac2.local", "ips": ["10.0.0.2"]}]'


@dataclass(frozen=True)
class Host:
    """A machine. memory: bytes that the model may take there; None asks the machine."""

    ssh: str
    ips: tuple[str, ...]
    rdma: tuple[Any, ...] = ()
    memory: int | None = None
    python: str | None = None

    @property
    def is_local(self) -> bool:
        return self.ssh in LOCAL


@dataclass(frozen=True)
class Hosts:
    """The machines in order of rank, how they talk, and what is set in their environment."""

    hosts: tuple[Host, ...]
    backend: str = RING
    environment: tuple[tuple[str, str], ...] = ()

    def environment_of(self, rank: int, first_port: int, write: str) -> dict[str, str]:
        """What MLX reads on rank `rank`. write: the path there of the file that `file_content` belongs in."""
        variables = {**dict(self.environment), "MLX_RANK": str(rank)}
        if (memory := self.hosts[rank].memory) is not None:
            variables["MLX_QWEN3_MEMORY"] = f"{memory / 1e9:g}GB"
        if self.backend == RING:
            return {**variables, "MLX_HOSTFILE": write}
        variables |= {
            "MLX_IBV_DEVICES": write,
            "MLX_JACCL_COORDINATOR": f"{self.hosts[0].ips[0]}:{first_port}",
        }
        return variables | ({"MLX_JACCL_RING": "1"} if self.backend == JACCL_RING else {})

    def file_content(self, first_port: int) -> str:
        """The file that MLX reads: addresses of the ring, or devices of JACCL."""
        if self.backend != RING:
            return json.dumps([list(host.rdma) for host in self.hosts])
        port, ring = first_port, []
        for host in self.hosts:
            node = []
            for address in host.ips:
                node.append(f"{address}:{port}")
                port += 1
            ring.append(node)
        return json.dumps(ring)


def read_hosts(path: Path) -> Hosts:
    """The machines that the file at `path` names. Raises DistributedError, which says what is wrong."""
    try:
        raw = json.loads(read_bytes(path, MOST_BYTES).decode())
    except OSError as error:
        raise DistributedError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DistributedError(f"{path} is not valid JSON: {error}; an example: {EXAMPLE}") from None
    backend: Any = RING
    environment: Any = []
    if isinstance(raw, Mapping):
        backend = raw.get("backend") or RING
        environment = raw.get("envs") or []
        raw = raw.get("hosts")
    if not isinstance(raw, list) or not all(isinstance(each, Mapping) for each in raw):
        raise DistributedError(f"{path} holds no list of machines; an example: {EXAMPLE}")
    if backend not in BACKENDS:
        raise DistributedError(f"{path}: backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if not 2 <= len(raw) <= MOST_RANKS:
        raise DistributedError(f"{path} names {len(raw)} machines; 2 to {MOST_RANKS} can share a model")
    hosts = tuple(_host(path, number, each, backend, len(raw)) for number, each in enumerate(raw))
    if not isinstance(environment, list) or not all(isinstance(e, str) and "=" in e for e in environment):
        raise DistributedError(f"{path}: envs must be a list of NAME=VALUE")
    pairs = [entry.split("=", 1) for entry in environment]
    return Hosts(hosts, backend, tuple((name, value) for name, value in pairs))


def _host(path: Path, number: int, raw: Mapping[str, Any], backend: str, count: int) -> Host:
    where = f"{path}: machine {number}"
    ssh, ips, rdma = raw.get("ssh"), raw.get("ips", []), raw.get("rdma", [])
    if not isinstance(ssh, str) or not ssh or ssh.startswith("-"):
        raise DistributedError(f"{where} has no `ssh` name")
    if not isinstance(ips, list) or not all(isinstance(address, str) for address in ips):
        raise DistributedError(f"{where}: ips must be a list of addresses")
    if not ips and (backend == RING or number == 0):
        raise DistributedError(f"{where} has no address in `ips`, by which the others reach it")
    if backend != RING and (not isinstance(rdma, list) or len(rdma) != count):
        raise DistributedError(f"{where}: rdma must name a device for each of the {count} machines")
    memory, python = raw.get("memory"), raw.get("python")
    if memory is not None and (
        isinstance(memory, bool) or not isinstance(memory, int | float) or memory <= 0
    ):
        raise DistributedError(f"{where}: memory must be a number of GB, not {memory!r}")
    if python is not None and not isinstance(python, str):
        raise DistributedError(f"{where}: python must be a path")
    return Host(ssh, tuple(ips), tuple(rdma or ()), None if memory is None else int(memory * 1e9), python)
