"""Compiles kernels for this processor, and keeps what was compiled in the cache folder.

A module of kernels is compiled once on a machine. Later processes load the object file.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import llvmlite.ir as ir
from platformdirs import user_cache_path

from mlx_qwen3.backend.switches import compile_listeners
from mlx_qwen3.errors import Qwen3Error
from mlx_qwen3.files import write_atomically

# Where compiled kernels are kept, if not in the user's cache folder.
FOLDER_VARIABLE = "MLX_QWEN3_KERNELS"
logger = logging.getLogger(__name__)
# Part of the name of what is kept: the source of the kernels, as it was when it was imported.
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))

_lock = RLock()
_addresses: dict[str, int] = {}


def address_of(module_name: str, kernel: str, emit: Callable[[ir.Module], None]) -> int:
    """The address of a kernel of a module, which is compiled or loaded if it was not yet.

    emit: adds the module's kernels to an empty module.
    """
    if (address := _addresses.get(kernel)) is None:
        with _lock:
            if kernel not in _addresses:
                _add(module_name, emit)
            address = _addresses[kernel]
    return address


def _add(name: str, emit: Callable[[ir.Module], None]) -> None:
    file = _folder() / f"{name}.o"
    engine = _engine()
    names: list[str] = []
    with suppress(OSError):
        stored = file.read_bytes()
        names = _load(engine, stored)
    if not names:
        names = _load(engine, _compile(name, emit))
    for kernel in names:
        _addresses[kernel] = engine.get_function_address(kernel)


def _load(engine: Any, stored: bytes) -> list[str]:
    """Link an object file behind a list of what it defines. Empty if it is damaged."""
    digest, _, rest = stored.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        return []
    names, _, code = rest.partition(b"\n")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return names.decode().split()


def _compile(name: str, emit: Callable[[ir.Module], None]) -> bytes:
    started = time.perf_counter()
    for listener in compile_listeners:
        listener()
    module = ir.Module(name)
    module.triple = llvm.get_process_triple()
    emit(module)
    machine = _machine()
    compiled = llvm.parse_assembly(str(module))
    compiled.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(compiled, builder)
    defined = [function for function in compiled.functions if not function.is_declaration]
    names = [function.name for function in defined if function.linkage.name == "external"]
    rest = " ".join(names).encode() + b"\n" + machine.emit_object(compiled)
    stored: bytes = hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest
    logger.info("compiled %s in %.1f s", name, time.perf_counter() - started)
    with suppress(OSError, Qwen3Error):  # a folder that cannot be written to costs the next process time
        _folder().mkdir(parents=True, exist_ok=True)
        write_atomically(_folder() / f"{name}.o", stored)
    return stored


@cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=features,
        opt=2,
        reloc="static",
        codemodel="jitdefault",
        jit=True,
    )


@cache
def _engine() -> Any:
    empty = llvm.parse_assembly("")
    return kept_for_ever(llvm.create_mcjit_compiler(empty, _machine()))  # it owns the code


def kept_for_ever(thing: Any) -> Any:
    """`thing`, which is never freed: threads in machine code may use it while the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


@cache
def _folder() -> Path:
    """The cache folder of this processor, this LLVM and these kernels."""
    digest = hashlib.sha256()
    for text in (llvmlite.__version__, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()):
        digest.update(text.encode())
    digest.update(_SOURCES)
    chosen = os.environ.get(FOLDER_VARIABLE)
    parent = Path(chosen) if chosen else user_cache_path("mlx-qwen3") / "kernels"
    return parent / digest.hexdigest()[:16]
