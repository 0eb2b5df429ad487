"""How threads share the operations of a program.

A program is an array of operations, each `SLOTS` 64-bit integers: the address of its kernel, which of its
work is taken and which is done, and its operands. One thread leads: it opens an operation, takes part in it,
and goes on once all of its work is done. Other threads take work from the operation that is open. None is
waited for unless it has taken some, so a thread that the system has put aside costs nothing.

What is taken of an operation is one word: the number of the run in its upper half, so that a thread which
comes late finds that the work is not that of the run it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels.emitter import F32, I64, POINTER, VOID, Kernel, Value
from mlx_qwen3.backend.native.layout import (
    DONE,
    KERNEL,
    OPEN,
    OPERANDS,
    OPERATIONS,
    PATIENCE,
    RUNS,
    SEMAPHORE,
    SLEEPERS,
    SLOTS,
    TAKEN,
    WORD,
)

HALF_WORD = 32
OPERATION_BITS = 16
MOST_OPERATIONS = 2**OPERATION_BITS
LAST_RUN = 2**30
# How often a thread looks before it lets others have its core.
SPINS = 2000


class Operation:
    """The operation that a kernel runs, as the kernel sees it: kernel(operation, thread, run)."""

    def __init__(self, k: Kernel):
        self.kernel = k
        self.address, self.thread, self.run = k.arguments
        self._next = OPERANDS

    def read(self, count: int) -> list[Value]:
        """The next `count` operands."""
        k, first = self.kernel, self._next
        self._next += count
        return [k.load(I64, self.address + WORD * (first + number)) for number in range(count)]

    def read_number(self) -> Value:
        """The next operand, a number in fp32."""
        k = self.kernel
        self._next += 1
        return k.load(F32, self.address + WORD * (self._next - 1))


@contextmanager
def chunks(
    op: Operation, total: Value, size: int | Value, before: Callable[[], None] | None = None
) -> Iterator[tuple[Value, Value]]:
    """Repeat for ranges of 0 .. total that no other thread takes, at most `size` each.

    before: emits what a thread does once, if it has work to do.
    """
    k = op.kernel
    size = size if isinstance(size, Value) else k.integer(size)
    take = k.module.globals.get("take") or _emit_take(k.module)
    first = k.call(take, op.address, op.run, total, size)
    with k.when(first > -1):
        if before is not None:
            before()
        place = k.variable(first)
        with k.forever() as done:
            start = place.get()
            stop = start + size
            stop = k.select(stop < total, stop, total)
            yield start, stop
            k.atomic_add(op.address + WORD * DONE, stop - start)
            place.set(k.call(take, op.address, op.run, total, size))
            k.leave_when(place.get() < 0, done)
    # The leader waits until all is done.
    with k.when(op.thread.equals(0)), k.forever() as done:
        k.leave_when(k.atomic_load(op.address + WORD * DONE).equals(total), done)
        k.wait_a_little(SPINS)


def _emit_take(module: ir.Module) -> ir.Function:
    """take(operation, run, total, size): the first of `size` pieces of work; -1 if there is none."""
    k = Kernel(module, "take", 4, result=I64, public=False)
    operation, run, total, size = k.arguments
    address = operation + WORD * TAKEN
    known, result = k.variable(k.atomic_load(address)), k.variable(k.integer(-1))
    with k.forever() as done:
        word = known.get()
        k.leave_when((word >> HALF_WORD).differs(run), done)
        taken = word & (2**HALF_WORD - 1)
        k.leave_when((taken < total).equals(0), done)
        found = k.exchange_if_equal(address, word, word + size)
        with k.when(found.equals(word)):
            result.set(taken)
        k.leave_when(found.equals(word), done)
        known.set(found)
    k.finish(result.get())
    return k.function


def emit(module: ir.Module) -> None:
    """Add `run_program` and `serve` to `module`."""
    _emit_run(module)
    _emit_serve(module)


class _Callee:
    """An address with the type of its function, which a pointer of LLVM does not know."""

    def __init__(self, pointer: ir.Value):
        self.type, self.function_type = pointer.type, ir.FunctionType(VOID, [I64] * 3)
        self.get_reference = pointer.get_reference


def _run_kernel(k: Kernel, operation: Value, thread: Value, run: Value) -> None:
    function = k.builder.inttoptr(k.load(I64, operation + WORD * KERNEL).raw, POINTER)
    k.builder.call(_Callee(function), [operation.raw, thread.raw, run.raw])


def _word(state: Value, word: int) -> Value:
    return state + WORD * word


def _emit_run(module: ir.Module) -> None:
    """run_program(state, operations, count, is_shared): run a program; returns when it is done.

    The operations lie in memory that is never freed: a thread that comes late still looks at them.
    """
    k = Kernel(module, "run_program", 4)
    state, operations, count, is_shared = k.arguments
    run = k.load(I64, _word(state, RUNS)) + 1
    run = k.select(run > LAST_RUN, k.integer(1), run)
    k.store(run, _word(state, RUNS))
    with k.loop(0, count) as number:
        operation = operations + number * (WORD * SLOTS)
        k.atomic_store(0, operation + WORD * DONE)
        k.atomic_store(run << HALF_WORD, operation + WORD * TAKEN)
    with k.when(is_shared.differs(0)):
        k.atomic_store(operations, _word(state, OPERATIONS))
    is_open = k.integer(-(2**63)) | (run << OPERATION_BITS)
    with k.loop(0, count) as number:
        operation = operations + number * (WORD * SLOTS)
        with k.when(is_shared.differs(0)):
            k.atomic_store(is_open | number, _word(state, OPEN))
            with k.when(number.equals(0)), k.loop(0, k.atomic_load(_word(state, SLEEPERS))):
                k.library_call("sem_post", _word(state, SEMAPHORE))
        _run_kernel(k, operation, k.integer(0), run)
        k.atomic_store(0, operation + WORD * TAKEN)
    with k.when(is_shared.differs(0)):
        k.atomic_store(0, _word(state, OPEN))
    k.finish()


def _emit_serve(module: ir.Module) -> None:
    """serve(state, thread, 0, 0): take part in every program, for ever."""
    k = Kernel(module, "serve", 4)
    state, thread = k.arguments[:2]
    seen = k.variable(k.integer(0))
    spins = k.variable(k.integer(0))
    patience = k.load(I64, _word(state, PATIENCE))
    with k.forever():
        is_open = k.atomic_load(_word(state, OPEN))
        is_new = is_open.differs(0) & is_open.differs(seen.get())
        with k.builder.if_else(is_new.raw) as (then, otherwise):
            with then:
                seen.set(is_open)
                spins.set(k.integer(0))
                operation = k.atomic_load(_word(state, OPERATIONS)) + (is_open & (MOST_OPERATIONS - 1)) * (
                    WORD * SLOTS
                )
                run = (is_open & (2**63 - 1)) >> OPERATION_BITS
                _run_kernel(k, operation, thread, run)
            with otherwise:
                spins.set(spins.get() + 1)
                k.wait_a_little(SPINS)
                with k.when(spins.get() > patience):
                    # While a program runs a thread only lets others have its core.
                    with k.when(is_open.differs(0)):
                        k.library_call("sched_yield")
                    with k.when(is_open.equals(0)):
                        spins.set(k.integer(0))
                        _sleep(k, state)
    k.builder.unreachable()


def _sleep(k: Kernel, state: Value) -> None:
    """Until there is a program."""
    k.atomic_add(_word(state, SLEEPERS), 1)
    # A program that began before this thread was counted does not wake it.
    with k.when(k.atomic_load(_word(state, OPEN)).equals(0)):
        k.library_call("sem_wait", _word(state, SEMAPHORE))
    k.atomic_add(_word(state, SLEEPERS), -1)
