"""Kernels between products: norms, rotary position embedding, SwiGLU, e^x and softmax, in fp32."""

from __future__ import annotations

import math

import llvmlite.ir as ir

from mlx_qwen3.backend.native.kernels.emitter import F32, I32, V8F, Kernel, Value
from mlx_qwen3.backend.native.kernels.work import Operation, chunks
from mlx_qwen3.backend.native.layout import FLOAT, LANES

LOWEST = -1e30
# Coefficients of e^r for |r| <= ln(2) / 2: Taylor's, the last ones fitted; off by 1e-7 at most.
EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
# Beyond these e^x is not a normal number.
SMALLEST_EXPONENT, LARGEST_EXPONENT = -87.3, 88.3


def emit(module: ir.Module) -> None:
    """Add the kernels `norm`, `swiglu`, `rotate`, `exp`, `softmax` to `module`."""
    _emit_norm(module)
    _emit_swiglu(module)
    _emit_rotate(module)
    _emit_exp(module)
    _emit_softmax(module)


def exp(k: Kernel, x: Value) -> Value:
    """e^x of a vector: 2^n e^r, where r is at most half of ln 2."""
    x = k.select(x < SMALLEST_EXPONENT, k.vector(SMALLEST_EXPONENT), x)
    x = k.select(x > LARGEST_EXPONENT, k.vector(LARGEST_EXPONENT), x)
    n = k.intrinsic("llvm.rint", x * math.log2(math.e))
    r = x - n * LN2_HIGH - n * LN2_LOW
    result = k.vector(EXP[0])
    for coefficient in EXP[1:]:
        result = result * r + coefficient
    result = result * (r * r) + r + 1.0
    power = (k.convert(n, "fptosi", I32) + 127) << 23
    return result * k.convert(power, "bitcast", F32)


def _norm_row(k: Kernel, x: Value, weight: Value, width: Value, eps: Value, y: Value) -> None:
    """y = x / sqrt(mean(x^2) + eps) * weight (https://arxiv.org/abs/1910.07467). width is in eights."""
    squares = k.variable(k.vector())
    with k.loop(0, width, LANES) as place:
        value = k.load(V8F, x + place * FLOAT)
        squares.set(squares.get() + value * value)
    mean = k.sum(squares.get()) / k.convert(width, "sitofp", F32)
    scale = k.splat(k.number(1.0) / k.intrinsic("llvm.sqrt", mean + eps))
    with k.loop(0, width, LANES) as place:
        offset = place * FLOAT
        k.store(k.load(V8F, x + offset) * scale * k.load(V8F, weight + offset), y + offset)


def _emit_norm(module: ir.Module) -> None:
    """Normalise rows. See `program.Program.norm`."""
    k = Kernel(module, "norm", 3)
    op = Operation(k)
    x, weight, width, rows, y = op.read(5)
    eps = op.read_number()
    with chunks(op, rows, 4) as (start, stop), k.loop(start, stop) as row:
        offset = row * width * FLOAT
        _norm_row(k, x + offset, weight, width, eps, y + offset)
    k.finish()


def _emit_swiglu(module: ir.Module) -> None:
    """gate <- gate / (1 + e^-gate) * up, number by number. See `program.Program.swiglu`."""
    k = Kernel(module, "swiglu", 3)
    op = Operation(k)
    gate, up, size = op.read(3)
    with chunks(op, size, 1024) as (start, stop), k.loop(start, stop, LANES) as place:
        g = k.load(V8F, gate + place * FLOAT)
        sigmoid = k.vector(1.0) / (exp(k, k.vector(0.0) - g) + 1.0)
        k.store(g * sigmoid * k.load(V8F, up + place * FLOAT), gate + place * FLOAT)
    k.finish()


def _emit_rotate(module: ir.Module) -> None:
    """Normalise heads, then rotate their pairs (i, i + D/2). See `program.Program.rotate`."""
    k = Kernel(module, "rotate", 3)
    op = Operation(k)
    x, weight, head_dim, heads, rows, table, y, row_step, head_step = op.read(9)
    eps = op.read_number()
    half = head_dim // 2
    with chunks(op, rows * heads, 8) as (start, stop), k.loop(start, stop) as number:
        row, head = number // heads, number % heads
        source, target = x + number * head_dim * FLOAT, y + row * row_step + head * head_step
        with k.when(weight.differs(0)):
            _norm_row(k, source, weight, head_dim, eps, source)
        turns = table + row * head_dim * FLOAT  # cosines, then sines
        with k.loop(0, half, LANES) as place:
            low, high = place * FLOAT, (place + half) * FLOAT
            a, b = k.load(V8F, source + low), k.load(V8F, source + high)
            cos, sin = k.load(V8F, turns + low), k.load(V8F, turns + high)
            k.store(a * cos - b * sin, target + low)
            k.store(b * cos + a * sin, target + high)
    k.finish()


def _emit_exp(module: ir.Module) -> None:
    """y = e^x. `size` is in eights. See `program.exp`."""
    k = Kernel(module, "exp", 3)
    op = Operation(k)
    x, y, size = op.read(3)
    with chunks(op, size, 4096) as (start, stop), k.loop(start, stop, LANES) as place:
        k.store(exp(k, k.load(V8F, x + place * FLOAT)), y + place * FLOAT)
    k.finish()


def softmax_row(k: Kernel, scores: Value, length: Value, scale: Value) -> Value:
    """Turn `length` scores into e^(scale * score - largest), in place. Returns one over their sum.

    Behind the last, up to a whole vector, zeros are written.
    """
    largest = k.variable(k.vector(LOWEST))
    padded = (length + (LANES - 1)) // LANES * LANES
    with k.loop(length, padded) as place:
        k.store(k.number(LOWEST), scores + place * FLOAT)
    with k.loop(0, padded, LANES) as place:
        largest.set(k.larger(largest.get(), k.load(V8F, scores + place * FLOAT)))
    peak = k.splat(k.largest(largest.get()) * scale)
    scales = k.splat(scale)
    total = k.variable(k.vector())
    with k.loop(0, padded, LANES) as place:
        weight = exp(k, k.load(V8F, scores + place * FLOAT) * scales - peak)
        k.store(weight, scores + place * FLOAT)
        total.set(total.get() + weight)
    with k.loop(length, padded) as place:
        k.store(k.number(0.0), scores + place * FLOAT)
    return k.number(1.0) / k.sum(total.get())


def _emit_softmax(module: ir.Module) -> None:
    """Causal softmax of many queries' scores, in place. See `program.softmax`."""
    k = Kernel(module, "softmax", 3)
    op = Operation(k)
    scores, rows, stride, block, first_visible = op.read(5)
    scale = op.read_number()
    with chunks(op, rows, 8) as (start, stop), k.loop(start, stop) as row:
        mine = scores + row * stride * FLOAT
        visible = first_visible + row % block
        factor = k.splat(softmax_row(k, mine, visible, scale))
        padded = (visible + (LANES - 1)) // LANES * LANES
        with k.loop(0, padded, LANES) as place:
            k.store(k.load(V8F, mine + place * FLOAT) * factor, mine + place * FLOAT)
        with k.loop(padded, stride, LANES) as place:
            k.store(k.vector(0.0), mine + place * FLOAT)
    k.finish()
