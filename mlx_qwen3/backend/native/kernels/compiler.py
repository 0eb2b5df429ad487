"""Compiles a unit of kernels for this processor."""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels import attention, gemm, linker, products, routing, steps, work
from mlx_qwen3.backend.native.layout import Unit
from mlx_qwen3.backend.native.machine_code import MachineCode, kept_for_ever

FIXED = {
    "work": work.emit,
    "steps": steps.emit,
    "attention": attention.emit,
    "panels": gemm.emit_helpers,
    "routing": routing.emit,
}
BY_FORMAT = {"products": products.emit, "experts": products.emit_experts, "matmul": gemm.emit}


def compile_unit(unit: Unit) -> MachineCode:
    """The code of all kernels of `unit`. What cannot be linked here is an object file, for `load_object`."""
    module = ir.Module(unit.name)
    module.triple = llvm.get_process_triple()
    if unit.fmt is None:
        FIXED[unit.kind](module)
    else:
        BY_FORMAT[unit.kind](module, unit.fmt)
    compiled = llvm.parse_assembly(str(module))
    compiled.verify()
    machine = _machine(linker.CAN_LINK)
    _optimize(compiled, machine)
    names = _kernels(compiled)
    try:
        return linker.link(machine.emit_object(compiled), names)
    except linker.CannotLinkError:
        return MachineCode(_machine(False).emit_object(compiled), dict.fromkeys(names, 0), is_object=True)


def load_object(code: MachineCode) -> dict[str, int]:
    """The addresses of the kernels of an object file, which LLVM links."""
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.code))
    engine.finalize_object()
    return {name: engine.get_function_address(name) for name in code.kernels}


def processor() -> bytes:
    """What LLVM says of this processor."""
    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}".encode()


def _optimize(compiled: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(compiled, builder)


def _kernels(compiled: Any) -> list[str]:
    """The names of what `compiled` defines for others."""
    defined = [function for function in compiled.functions if not function.is_declaration]
    return [function.name for function in defined if function.linkage.name == "external"]


@cache
def _machine(is_for_linker: bool) -> Any:
    """is_for_linker: code that may lie anywhere in memory."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    how = {"reloc": "pic", "codemodel": "small"} if is_for_linker else {"reloc": "static", "jit": True}
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2, **how)


@cache
def _engine() -> Any:
    empty = llvm.parse_assembly("")
    return kept_for_ever(llvm.create_mcjit_compiler(empty, _machine(False)))  # it owns the code
