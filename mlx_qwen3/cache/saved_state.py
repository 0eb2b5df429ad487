"""Checks what a file says of a saved KV cache, before anything is built of it.

A state is that of a cache's `state` property: keys, values, then numbers. Each number is compared with the
rows that are there; where the model is known, with its caches too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx

MAX_TOKENS = 2**31 - 1
MAX_WINDOW_BYTES = 2**30  # a window takes its memory at once, however few tokens it holds
FLOATS = (mx.float16, mx.bfloat16, mx.float32)


class LayerShape(NamedTuple):
    """What the caches of a model have in common: key/value heads, and the size of one."""

    heads: int
    head_dim: int


class State(NamedTuple):
    """A checked state. `window` is (keep, max_size, next slot), `layout` (group size, bits)."""

    keys: Any
    values: Any
    offset: int
    window: tuple[int, ...]
    layout: tuple[int, ...]


def check_state(name: str, state: Any) -> State:
    """The state of a cache of the class `name`. Raises ValueError, which says what is wrong with it."""
    is_window, is_quantized = "Rotating" in name, name.startswith("Quantized")
    length = 3 + 3 * is_window + 2 * is_quantized
    if not isinstance(state, list | tuple) or len(state) != length:
        raise ValueError(f"a {name} has {length} values")
    keys, values, *numbers = state
    if any(type(number) is not int or not 0 <= number <= MAX_TOKENS for number in numbers):
        raise ValueError(f"the numbers of a {name} are {numbers}")
    offset, window, layout = numbers[0], numbers[1 : 1 + 3 * is_window], numbers[1 + 3 * is_window :]
    checked = State(keys, values, offset, tuple(window), tuple(layout))
    if is_window and not window[0] < window[1]:
        raise ValueError(f"a window of {window[1]} tokens keeps {window[0]}")
    if is_quantized and (layout[0] not in (32, 64, 128) or layout[1] not in (4, 8)):
        raise ValueError(f"there are no rows of {layout[1]} bits in groups of {layout[0]}")
    if (keys is None) != (values is None) or (keys is None and offset):
        raise ValueError("keys or values are missing")
    if keys is not None:
        _check_rows(checked)
    return checked


def _check_rows(state: State) -> None:
    """Raise ValueError if keys and values are not rows of the same tokens, as many as there should be."""
    keys, values = row_shape(state.keys, state.layout), row_shape(state.values, state.layout)
    if keys[:3] != values[:3]:
        raise ValueError(f"keys are of the shape {keys}, values {values}")
    if not state.window:
        if keys[2] != state.offset:
            raise ValueError(f"{state.offset} tokens, but {keys[2]} rows")
        return
    _, max_size, slot = state.window
    # mlx-lm's window holds all rows of its last chunk.
    is_possible = min(state.offset, max_size) <= keys[2] <= max(max_size, state.offset)
    if not is_possible or slot > max(max_size, keys[2]):
        raise ValueError(f"{state.offset} tokens in a window of {max_size}, but {keys[2]} rows")
    row_bytes = keys[0] * keys[1] * (keys[3] + values[3]) * 4
    if row_bytes * max_size > max(MAX_WINDOW_BYTES, 64 * row_bytes * keys[2]):
        raise ValueError(f"a window of {max_size} tokens for {keys[2]} rows")


def row_shape(rows: Any, layout: Sequence[int]) -> tuple[int, ...]:
    """(B, H, tokens, D) of rows, plain or packed. Raises ValueError for what cannot be rows."""
    if not layout:
        if not isinstance(rows, mx.array) or rows.ndim != 4 or rows.dtype not in FLOATS:
            raise ValueError("keys and values are not arrays (B, H, tokens, D) of floating-point numbers")
        return tuple(rows.shape)
    group_size, bits = layout
    parts = list(rows) if isinstance(rows, list | tuple) else []
    if len(parts) != 3 or any(not isinstance(part, mx.array) or part.ndim != 4 for part in parts):
        raise ValueError("quantized rows are not (packed, scales, biases)")
    packed, scales, biases = parts
    *outer, words = packed.shape
    size = words * 32 // bits
    is_sound = packed.dtype == mx.uint32 and scales.dtype == biases.dtype and scales.dtype in FLOATS
    groups = (*outer, size // group_size)
    if not is_sound or size % group_size or tuple(scales.shape) != groups or tuple(biases.shape) != groups:
        raise ValueError(
            f"quantized rows do not fit together: {packed.shape}, {scales.shape}, {biases.shape}"
        )
    return (*outer, size)


def check_for_model(state: State, shape: LayerShape | None, offset: int, like: tuple[int, ...]) -> None:
    """Raise ValueError if a state is not one of a model's caches.

    shape: the model's, where it is known. offset: the tokens that the file says it holds.
    like: keep, max_size, group size and bits of the model's own cache, where it has them.
    """
    if (*state.window[:2], *state.layout) != like:
        raise ValueError("it holds caches of another kind")
    if not state.window and state.offset != offset:
        raise ValueError(f"{offset} tokens, but {state.offset} in a layer")
    if state.keys is None:
        return
    for rows in (state.keys, state.values):
        batch, heads, _, head_dim = row_shape(rows, state.layout)
        if batch != 1 or (shape is not None and (heads, head_dim) != shape):
            raise ValueError(f"a layer has {heads} heads of {head_dim} in {batch} sequences")
        if not mx.all(mx.isfinite(_numbers(rows))).item():
            raise ValueError("keys or values are not finite")


def _numbers(rows: Any) -> mx.array:
    """The floating-point numbers of rows: all, or the scales of packed ones."""
    return rows if isinstance(rows, mx.array) else rows[1]
