"""The machine: chip, system, versions, memory, and whether MLX's device is really there."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import mlx.core as mx
import psutil

from mlx_qwen3.backend.device import available_memory, is_cpu, is_metal, recommended_memory
from mlx_qwen3.backend.versions import installed_version

TESTED_MLX = (0, 32, 4)
"""The MLX that everything was tested with. Earlier ones are wrong in ways that reach this package."""
GB = 1e9


def describe() -> dict[str, str]:
    """What a report should say of the machine."""
    info = mx.device_info()
    device = "CPU" if is_cpu() else "Metal" if is_metal() else "CUDA"
    system = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.platform()
    packages = [f"{name} {installed_version(name) or 'none'}" for name in ("mlx-qwen3", "mlx", "mlx-lm")]
    recommended = recommended_memory()
    memory = f"{psutil.virtual_memory().total / GB:.1f} GB, {available_memory() / GB:.1f} GB for models now"
    return {
        "device": f"{device}, {info.get('device_name', 'unnamed')} ({info.get('architecture', 'unknown')})",
        "system": f"{system}, Python {platform.python_version()}",
        "versions": ", ".join(packages),
        "memory": memory + (f", {recommended / GB:.1f} GB recommended by Metal" if recommended else ""),
    }


def key() -> str:
    """Equal as long as the machine's kernels are: device, system and versions."""
    described = describe()
    return "; ".join(described[name] for name in ("device", "system", "versions"))


def check_machine() -> Iterator[str]:
    """The version of MLX, and whether its device computes at all."""
    installed = installed_version("mlx") or "none"
    numbers = tuple(int(part) for part in installed.split(".")[:3] if part.isdigit())
    if numbers < TESTED_MLX:
        wanted = ".".join(map(str, TESTED_MLX))
        yield f"MLX {installed} has faults that {wanted} mends; run pip install -U 'mlx>={wanted}'"
    total = mx.arange(1000, dtype=mx.float32).sum().item()
    if total != 499_500:
        yield f"the sum of 0 to 999 came out as {total}"
    if is_metal() and recommended_memory() is None:
        yield "Metal does not say how much memory it recommends"
