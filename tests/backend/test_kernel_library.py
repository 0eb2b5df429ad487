"""Compiled kernels in the cache folder: loaded without LLVM, remade when damaged, written by two at once."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_qwen3.backend.switches import has_kernels

if not has_kernels():
    pytest.skip("kernels are for Linux CPUs", allow_module_level=True)

import numpy as np

from mlx_qwen3.backend.native import layout, library
from mlx_qwen3.backend.native.kernels import compiler, linker
from mlx_qwen3.backend.native.layout import Unit
from mlx_qwen3.backend.native.machine_code import MachineCode

STEPS = Unit("steps")
SIZE = 64
PROGRAM = """
import sys
import numpy as np
from mlx_qwen3.backend.native.program import Program
x, y = np.linspace(-5, 5, 64, dtype=np.float32), np.zeros(64, np.float32)
program = Program()
program.exp(x.ctypes.data, y.ctypes.data, 64)
program.run()
assert np.abs(y / np.exp(x) - 1).max() < 1e-6
print("llvmlite" in sys.modules)
"""


@pytest.fixture(scope="module")
def compiled() -> MachineCode:
    return compiler.compile_unit(STEPS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(library, "folder", lambda: tmp_path)
    return tmp_path


def computes(kernels: dict[str, int]) -> bool:
    """Whether the kernel `exp` at its address computes e^x, on this thread alone."""
    x, y = np.linspace(-5, 5, SIZE, dtype=np.float32), np.zeros(SIZE, np.float32)
    operation = np.zeros(layout.SLOTS, np.int64)
    run = 1
    operation[layout.TAKEN] = run << 32
    operation[layout.OPERANDS : layout.OPERANDS + 3] = x.ctypes.data, y.ctypes.data, SIZE
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(kernels["exp"])
    kernel(operation.ctypes.data, 0, run)
    return bool(np.abs(y / np.exp(x) - 1).max() < 1e-6)


def test_what_was_compiled_comes_back_from_its_file(compiled: MachineCode) -> None:
    again = MachineCode.from_bytes(compiled.to_bytes())
    assert again == compiled
    assert computes(compiler.load_object(again) if again.is_object else again.load())


@pytest.mark.skipif(not linker.CAN_LINK, reason="LLVM links in each process here")
def test_linked_code_computes_what_llvms_own_linker_makes(
    compiled: MachineCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not compiled.is_object
    monkeypatch.setattr(linker, "CAN_LINK", False)
    by_llvm = compiler.compile_unit(STEPS)
    assert by_llvm.is_object
    assert by_llvm.kernels.keys() == compiled.kernels.keys()
    assert computes(compiler.load_object(by_llvm))
    assert computes(compiled.load())


def flipped(stored: bytes, place: int) -> bytes:
    return stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "cut off": lambda stored: stored[: len(stored) // 2],
    "a bit of the checksum": lambda stored: flipped(stored, 3),
    "a bit of the header": lambda stored: flipped(stored, 80),
    "a bit of the code": lambda stored: flipped(stored, len(stored) - 9),
    "longer": lambda stored: stored + b"\0",
    "not ours": lambda _: b"\x7fELF" + bytes(100),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_made_anew(
    folder: Path, compiled: MachineCode, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def compile_unit(unit: Unit) -> MachineCode:
        made.append(unit)
        return compiled

    monkeypatch.setattr(compiler, "compile_unit", compile_unit)
    file = folder / "steps.bin"
    file.write_bytes(damage(compiled.to_bytes()))
    assert computes(library._load(STEPS))
    assert made == [STEPS]
    assert file.read_bytes() == compiled.to_bytes()
    assert computes(library._load(STEPS))
    assert made == [STEPS], "the new file was not used"


def test_a_folder_that_cannot_be_written_to_costs_time_alone(
    compiled: MachineCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(library, "folder", lambda: tmp_path / "file" / "kernels")
    monkeypatch.setattr(compiler, "compile_unit", lambda _: compiled)
    assert computes(library._load(STEPS))


def start(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, library.FOLDER_VARIABLE: str(folder), "MLX_QWEN3_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_processes_compile_at_once_and_later_ones_do_without_llvm(tmp_path: Path) -> None:
    both = [start(tmp_path), start(tmp_path)]
    assert [process.communicate()[0].strip() for process in both] == ["True", "True"]
    assert [process.returncode for process in both] == [0, 0]
    (own,) = tmp_path.iterdir()
    assert sorted(path.name for path in own.iterdir()) == ["steps.bin", "work.bin"]  # nothing half written
    later = start(tmp_path)
    assert later.communicate()[0].strip() == str(not linker.CAN_LINK)
    assert later.returncode == 0


def test_kernels_of_another_processor_or_llvm_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder_of(cpuinfo: str, version: bytes = b"1") -> Path:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
        monkeypatch.setattr(library, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(library, "_llvm_version", lambda: version)
        uncached: Any = library.folder.__wrapped__
        result: Path = uncached()
        return result

    first = folder_of("processor\t: 0\nmodel\t\t: 1\ncpu MHz\t: 2000\nflags\t\t: sse2 avx2\n\n")
    same = folder_of("processor\t: 3\nmodel\t\t: 1\ncpu MHz\t: 900\nflags\t\t: sse2 avx2\n\nflags : x\n")
    other = folder_of("processor\t: 0\nmodel\t\t: 1\nflags\t\t: sse2\n\n")
    no_flags = folder_of("nothing of use\n")  # LLVM is asked
    newer = folder_of("model\t\t: 1\nflags\t\t: sse2 avx2\n\n", b"2")
    assert first == same
    assert len({first, other, no_flags, newer}) == 4
