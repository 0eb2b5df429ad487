"""Finds compiled kernels in the cache folder, or has them compiled and keeps them there.

Kernels are compiled once on a machine. Later processes load them without LLVM.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import RLock

from platformdirs import user_cache_path

from mlx_qwen3.backend.native.layout import Unit
from mlx_qwen3.backend.native.machine_code import MachineCode
from mlx_qwen3.backend.switches import compile_listeners
from mlx_qwen3.backend.versions import installed_version
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.files import write_atomically

# Where compiled kernels are kept, if not in the user's cache folder.
FOLDER_VARIABLE = "MLX_QWEN3_KERNELS"
logger = logging.getLogger(__name__)
_HERE = Path(__file__).parent
# What decides about the code, as it was when this was imported.
_SOURCES = b"".join(
    path.read_bytes()
    for path in [_HERE / "layout.py", _HERE / "machine_code.py", *sorted((_HERE / "kernels").glob("*.py"))]
)
CPUINFO = Path("/proc/cpuinfo")
# What the system says of a processor that decides which instructions it has (x86, then Arm).
CPUINFO_KEYS = (
    "vendor_id", "cpu family", "model", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
)  # fmt: skip

_lock = RLock()
_addresses: dict[str, int] = {}


def _after_fork() -> None:
    """In a forked process nothing holds the lock, though a thread may have when its memory was copied."""
    global _lock
    _lock = RLock()


os.register_at_fork(after_in_child=_after_fork)


def address_of(unit: Unit, kernel: str) -> int:
    """The address of a kernel of a unit, which is loaded or compiled if it was not yet."""
    if (address := _addresses.get(kernel)) is None:
        with _lock:
            if kernel not in _addresses:
                _addresses.update(_load(unit))
            address = _addresses[kernel]
    return address


def _load(unit: Unit) -> dict[str, int]:
    file = folder() / f"{unit.name}.bin"
    code: MachineCode | None = None
    with suppress(OSError):
        code = MachineCode.from_bytes(file.read_bytes())
    if code is None:
        code = _compile(unit, file)
    if code.is_object:
        from mlx_qwen3.backend.native.kernels.compiler import load_object

        return load_object(code)
    return code.load()


def _compile(unit: Unit, file: Path) -> MachineCode:
    started = time.perf_counter()
    for listener in compile_listeners:
        listener()
    from mlx_qwen3.backend.native.kernels.compiler import compile_unit

    code = compile_unit(unit)
    logger.info("compiled %s in %.1f s", unit.name, time.perf_counter() - started)
    with suppress(OSError, Qwen3Error):  # a folder that cannot be written to costs the next process time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, code.to_bytes())
    return code


@cache
def folder() -> Path:
    """The cache folder of this processor, this LLVM and these kernels."""
    digest = hashlib.sha256(_SOURCES)
    for text in (_llvm_version(), _processor()):
        digest.update(hashlib.sha256(text).digest())
    chosen = os.environ.get(FOLDER_VARIABLE)
    parent = Path(chosen) if chosen else user_cache_path("mlx-qwen3") / "kernels"
    return parent / digest.hexdigest()[:16]


def _llvm_version() -> bytes:
    """The version of llvmlite, without importing it."""
    spec = find_spec("llvmlite")
    assert spec is not None  # `has_kernels` has looked
    assert spec.origin is not None
    try:
        return (Path(spec.origin).parent / "_version.py").read_bytes()
    except OSError:
        return str(installed_version("llvmlite")).encode()


def _processor() -> bytes:
    """What tells processors apart that run different code."""
    lines = []
    with suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():  # the next core is like the first
                break
            lines += [line] if line.split(":")[0].strip() in CPUINFO_KEYS else []
    if not any(line.startswith(("flags", "Features")) for line in lines):
        from mlx_qwen3.backend.native.kernels.compiler import processor

        return processor()
    return "".join(lines).encode()
