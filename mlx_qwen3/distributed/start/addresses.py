"""Where rank 0 can be reached, as the launcher told it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path


def rank_0_addresses() -> list[str]:
    """Names or addresses of rank 0: of the ring, of JACCL's coordinator or NCCL's; else of this machine."""
    found = []
    ring = os.environ.get("MLX_HOSTFILE", "")
    try:
        first = json.loads(Path(ring).read_text(encoding="utf-8"))[0] if ring else []
        found += [str(address).rpartition(":")[0].strip("[]") for address in first]
    except (OSError, ValueError, IndexError, TypeError):
        pass
    if coordinator := os.environ.get("MLX_JACCL_COORDINATOR", ""):
        found.append(coordinator.rpartition(":")[0].strip("[]"))
    if host := os.environ.get("NCCL_HOST_IP", ""):
        found.append(host)
    return list(dict.fromkeys(found)) or ["127.0.0.1", socket.gethostname()]
