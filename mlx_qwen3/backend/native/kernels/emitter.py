"""A small language over LLVM's IR builder, in which the kernels are written.

Numbers are `Value`s, with Python's operators. Addresses are 64-bit integers, in bytes. `vector` values hold
eight fp32 numbers: LLVM maps them to the registers that the processor has.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Union

import llvmlite.ir as ir

from mlx_qwen3.backend.native.layout import LANES

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
V8F, V8I = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
POINTER = ir.PointerType()
VOID = ir.VoidType()
# A product and a sum may be computed in one instruction.
FAST = ("contract",)

Operand = Union["Value", int, float]


class Value:
    """A number or a vector of numbers, known when the kernel runs."""

    def __init__(self, builder: ir.IRBuilder, raw: Any):
        self.builder, self.raw = builder, raw

    @property
    def type(self) -> Any:
        return self.raw.type

    def _other(self, other: Operand) -> Any:
        if isinstance(other, Value):
            return other.raw
        if isinstance(self.type, ir.VectorType):
            return ir.Constant(self.type, [other] * self.type.count)
        return ir.Constant(self.type, other)

    def _is_float(self) -> bool:
        element = self.type.element if isinstance(self.type, ir.VectorType) else self.type
        return not isinstance(element, ir.IntType)

    def _binary(self, whole: str, real: str, other: Operand) -> Value:
        if self._is_float():
            return Value(self.builder, getattr(self.builder, real)(self.raw, self._other(other), flags=FAST))
        return Value(self.builder, getattr(self.builder, whole)(self.raw, self._other(other)))

    def __add__(self, other: Operand) -> Value:
        return self._binary("add", "fadd", other)

    def plus_exactly(self, other: Value) -> Value:
        """The sum, rounded as a product before it is: not in one instruction with it."""
        return Value(self.builder, self.builder.fadd(self.raw, other.raw))

    def __sub__(self, other: Operand) -> Value:
        return self._binary("sub", "fsub", other)

    def __mul__(self, other: Operand) -> Value:
        return self._binary("mul", "fmul", other)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.fdiv(self.raw, self._other(other)))

    def __floordiv__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.udiv(self.raw, self._other(other)))

    def __mod__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.urem(self.raw, self._other(other)))

    def __and__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.and_(self.raw, self._other(other)))

    def __or__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.or_(self.raw, self._other(other)))

    def __lshift__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.shl(self.raw, self._other(other)))

    def __rshift__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.lshr(self.raw, self._other(other)))

    def _compared(self, sign: str, other: Operand) -> Value:
        compare = self.builder.fcmp_ordered if self._is_float() else self.builder.icmp_signed
        return Value(self.builder, compare(sign, self.raw, self._other(other)))

    def __lt__(self, other: Operand) -> Value:
        return self._compared("<", other)

    def __gt__(self, other: Operand) -> Value:
        return self._compared(">", other)

    def equals(self, other: Operand) -> Value:
        return self._compared("==", other)

    def differs(self, other: Operand) -> Value:
        return self._compared("!=", other)


class Variable:
    """A value that changes while the kernel runs. LLVM keeps it in a register."""

    def __init__(self, kernel: Kernel, first: Value, is_constant: bool = False):
        """is_constant: the variable is `first` when the kernel begins, not each time one comes here."""
        self._builder, self._type = kernel.builder, first.type
        with self._builder.goto_entry_block():
            self._slot = self._builder.alloca(first.type)
            if is_constant:
                self.set(first)
        if not is_constant:
            self.set(first)

    def get(self) -> Value:
        return Value(self._builder, self._builder.load(self._slot, typ=self._type))

    def set(self, value: Value) -> None:
        self._builder.store(value.raw, self._slot)


class Kernel:
    """A function that is being written."""

    def __init__(self, module: ir.Module, name: str, arguments: int, result: Any = VOID, public: bool = True):
        """arguments: how many 64-bit integers it takes."""
        self.module = module
        self.function = ir.Function(module, ir.FunctionType(result, [I64] * arguments), name)
        if not public:
            self.function.linkage = "internal"
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.arguments = [Value(self.builder, raw) for raw in self.function.args]
        self._waits: Variable | None = None

    # Constants, conversions

    def integer(self, value: int, kind: Any = I64) -> Value:
        return Value(self.builder, ir.Constant(kind, value))

    def number(self, value: float) -> Value:
        return Value(self.builder, ir.Constant(F32, value))

    def vector(self, value: float = 0.0) -> Value:
        return Value(self.builder, ir.Constant(V8F, [value] * LANES))

    def lanes(self, values: list[int], kind: Any = I32) -> Value:
        return Value(self.builder, ir.Constant(ir.VectorType(kind, LANES), values))

    def splat(self, scalar: Value) -> Value:
        """A vector of eight times `scalar`."""
        kind = ir.VectorType(scalar.type, LANES)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar.raw, ir.Constant(I32, 0))
        zeros = ir.Constant(V8I, [0] * LANES)
        return Value(self.builder, self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros))

    def shuffled(self, a: Value, b: Value, order: list[int]) -> Value:
        """A vector of lanes of `a` (0 to 7) and `b` (8 to 15)."""
        return Value(self.builder, self.builder.shuffle_vector(a.raw, b.raw, ir.Constant(V8I, order)))

    def convert(self, value: Value, how: str, kind: Any) -> Value:
        """`how` is LLVM's name of the conversion: zext, trunc, sitofp, fpext, bitcast ..."""
        if isinstance(value.type, ir.VectorType) and not isinstance(kind, ir.VectorType):
            kind = ir.VectorType(kind, value.type.count)
        return Value(self.builder, getattr(self.builder, how)(value.raw, kind))

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        return Value(self.builder, self.builder.select(condition.raw, yes.raw, no.raw))

    def smaller(self, a: Value, b: Value) -> Value:
        return self.select(a < b, a, b)

    def larger(self, a: Value, b: Value) -> Value:
        return self.select(a > b, a, b)

    def sum(self, vector: Value) -> Value:
        """The sum of the eight lanes."""
        return self._folded(vector, lambda a, b: a + b)

    def largest(self, vector: Value) -> Value:
        """The largest of the eight lanes."""
        return self._folded(vector, self.larger)

    def _folded(self, vector: Value, fold: Any) -> Value:
        for half in (4, 2, 1):
            order = [(lane + half) % LANES for lane in range(LANES)]
            vector = fold(vector, self.shuffled(vector, vector, order))
        return Value(self.builder, self.builder.extract_element(vector.raw, ir.Constant(I32, 0)))

    def intrinsic(self, name: str, *operands: Value) -> Value:
        """A function of LLVM over fp32 numbers or vectors."""
        kind = operands[0].type
        name = f"{name}.{'v8f32' if isinstance(kind, ir.VectorType) else 'f32'}"
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(kind, [kind] * len(operands)), name)
        return Value(self.builder, self.builder.call(function, [operand.raw for operand in operands]))

    def call(self, function: Any, *arguments: Operand) -> Value:
        raw = [a.raw if isinstance(a, Value) else ir.Constant(I64, a) for a in arguments]
        return Value(self.builder, self.builder.call(function, raw))

    # Memory

    def pointer(self, address: Value) -> Any:
        return self.builder.inttoptr(address.raw, POINTER)

    def load(self, kind: Any, address: Value) -> Value:
        return Value(self.builder, self.builder.load(self.pointer(address), align=1, typ=kind))

    def store(self, value: Value, address: Value) -> None:
        self.builder.store(value.raw, self.pointer(address), align=1)

    def prefetch(self, address: Value) -> None:
        """Have the processor bring what is at `address` into its cache."""
        name = "llvm.prefetch.p0"
        function = self.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(VOID, [POINTER, I32, I32, I32])
            function = ir.Function(self.module, kind, name)
        how = [ir.Constant(I32, value) for value in (0, 3, 1)]  # to read, to keep, data
        self.builder.call(function, [self.pointer(address), *how])

    # Control

    def variable(self, first: Value) -> Variable:
        return Variable(self, first)

    @contextmanager
    def loop(self, start: Value | int, stop: Value | int, step: Value | int = 1) -> Iterator[Value]:
        """Repeat for start, start + step, ... below stop."""
        counter = self.variable(start if isinstance(start, Value) else self.integer(start))
        head, body, done = (self.builder.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        self.builder.cbranch((counter.get() < stop).raw, body, done)
        self.builder.position_at_end(body)
        yield counter.get()
        counter.set(counter.get() + step)
        self.builder.branch(head)
        self.builder.position_at_end(done)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        with self.builder.if_then(condition.raw):
            yield

    @contextmanager
    def forever(self) -> Iterator[Any]:
        """Repeat until `leave_when` is called with the block that this yields."""
        body, done = (self.builder.append_basic_block() for _ in range(2))
        self.builder.branch(body)
        self.builder.position_at_end(body)
        yield done
        self.builder.branch(body)
        self.builder.position_at_end(done)

    def leave_when(self, condition: Value, done: Any) -> None:
        following = self.builder.append_basic_block()
        self.builder.cbranch(condition.raw, done, following)
        self.builder.position_at_end(following)

    def finish(self, result: Value | None = None) -> None:
        if result is None:
            self.builder.ret_void()
        else:
            self.builder.ret(result.raw)

    # Numbers between threads

    def atomic_add(self, address: Value, value: Operand) -> Value:
        """Add to a 64-bit integer that other threads change too. Returns what it was before."""
        raw = value.raw if isinstance(value, Value) else ir.Constant(I64, value)
        return Value(self.builder, self.builder.atomic_rmw("add", self.pointer(address), raw, "seq_cst"))

    def atomic_load(self, address: Value) -> Value:
        return Value(self.builder, self.builder.load_atomic(self.pointer(address), "seq_cst", 8, typ=I64))

    def atomic_store(self, value: Operand, address: Value) -> None:
        raw = value.raw if isinstance(value, Value) else ir.Constant(I64, value)
        self.builder.atomic_rmw("xchg", self.pointer(address), raw, "seq_cst")

    def exchange_if_equal(self, address: Value, expected: Value, new: Value) -> Value:
        """Put `new` in place of `expected`, unless another thread was faster. Returns what was there."""
        pair = self.builder.cmpxchg(self.pointer(address), expected.raw, new.raw, "seq_cst")
        return Value(self.builder, self.builder.extract_value(pair, 0))

    def library_call(self, name: str, *arguments: Value) -> Value:
        """Call a function of the C library that takes and returns integers or addresses."""
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(I32, [I64] * len(arguments)), name)
        return self.call(function, *arguments)

    def wait_a_little(self, spins: int) -> None:
        """Wait; every `spins`th time, let another thread have the core."""
        if self._waits is None:
            self._waits = Variable(self, self.integer(0), is_constant=True)
        count = self._waits
        self.pause()
        count.set(count.get() + 1)
        with self.when((count.get() % spins).equals(0)):
            self.library_call("sched_yield")

    def pause(self) -> None:
        """Tell the processor that this thread waits."""
        if platform.machine() == "x86_64":
            kind = ir.FunctionType(VOID, [])
            self.builder.call(self.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
