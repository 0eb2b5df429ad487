"""SwiGLU's activation, in the forms that `prepare` chooses from for a device."""

from __future__ import annotations

import mlx.core as mx

from mlx_qwen3.backend.exp import sigmoid


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up, element by element.

    `nn.silu` is compiled, and on the CPU MLX would start a C++ compiler for it.
    """
    return gate * sigmoid(gate) * up


compiled_swiglu = mx.compile(swiglu, shapeless=True)
"""`swiglu` as one kernel, for a GPU."""
