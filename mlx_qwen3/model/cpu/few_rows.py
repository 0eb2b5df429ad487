"""A pass over a few tokens as one program: every thread stays in machine code from embedding to logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_qwen3.backend.native.layout import SEQUENCE_WORDS
from mlx_qwen3.backend.native.program import Program
from mlx_qwen3.model.cpu.weights import Layer, Weights

# Operands of `attend`, counted from 0: how many sequences there are.
NUM_SEQUENCES = 7


class FewRows:
    """The program for a number of rows, and the memory it computes in."""

    def __init__(self, weights: Weights, rows: int):
        shape = weights.shape
        hidden, heads, keys, D = shape.hidden, shape.heads, shape.key_heads, shape.head_dim
        layers = weights.layers
        widest = max(layer.inner_numbers for layer in layers)

        def memory(*size: int) -> Any:
            return np.empty(size, np.float32)

        self.rows = rows
        self.ids = np.empty(rows, np.int64)
        self.rotations = memory(rows, D)
        self.sequences = np.zeros((len(layers), rows, SEQUENCE_WORDS), np.int64)
        self.new_rows = memory(len(layers), 2, rows, keys, D)  # keys and values
        self.x, self._normed = memory(rows, hidden), memory(rows, hidden)
        self.logits = memory(rows, weights.head.stored.outputs)
        self._q, self._attended = memory(rows, heads, D), memory(rows, heads, D)
        self._gate, self._up = memory(rows, widest), memory(rows, widest)
        if any(layer.experts is not None for layer in layers):
            experts = max(layer.num_experts for layer in layers)
            chosen = max(layer.chosen for layer in layers)
            self._router = memory(rows, experts)
            self._chosen, self._weights = np.empty((rows, chosen), np.int64), memory(rows, chosen)
            self._outputs = memory(rows * chosen, hidden)

        self._program = Program()
        self._attends: list[int] = []
        self._num_sequences = 0
        x = self.x.ctypes.data
        self._program.unpack(weights.embedding.stored, rows, x, self.ids.ctypes.data)
        for number, layer in enumerate(layers):
            self._add_attention(weights, layer, number)
            self._program.norm(x, layer.mlp_norm, hidden, rows, self._normed.ctypes.data, shape.eps)
            if layer.experts is None:
                self._add_mlp(layer)
            else:
                self._add_experts(layer, layer.experts.norm_topk_prob)
        normed = self._normed.ctypes.data
        self._program.norm(x, weights.norm, hidden, rows, normed, shape.eps)
        self._before_logits = len(self._program)
        self._program.product(weights.head.stored, normed, self.logits.ctypes.data, rows)

    def _add_attention(self, weights: Weights, layer: Layer, number: int) -> None:
        shape, program, rows = weights.shape, self._program, self.rows
        heads, key_heads, D = shape.heads, shape.key_heads, shape.head_dim
        x, normed, q = (array.ctypes.data for array in (self.x, self._normed, self._q))
        k, v = (self.new_rows[number, which].ctypes.data for which in (0, 1))
        table = self.rotations.ctypes.data
        program.norm(x, layer.input_norm, shape.hidden, rows, normed, shape.eps)
        program.product(layer.q.stored, normed, q, rows)
        program.product(layer.k.stored, normed, k, rows)
        program.product(layer.v.stored, normed, v, rows)
        for array, weight, count in ((q, layer.q_norm, heads), (k, layer.k_norm, key_heads)):
            steps = (4 * count * D, 4 * D)
            program.rotate(array, weight, (rows, count, D), table, array, steps, shape.eps)
        sequences = self.sequences[number].ctypes.data
        attended = self._attended.ctypes.data
        self._attends.append(
            program.attend(q, k, v, (heads, key_heads, D), sequences, 0, attended, shape.scale)
        )
        program.product(layer.o.stored, attended, x, rows, addend=x)

    def _add_mlp(self, layer: Layer) -> None:
        program, rows = self._program, self.rows
        x, normed, gate, up = (array.ctypes.data for array in (self.x, self._normed, self._gate, self._up))
        program.product(layer.gate.stored, normed, gate, rows)
        program.product(layer.up.stored, normed, up, rows)
        program.swiglu(gate, up, rows * layer.gate.stored.outputs)
        program.product(layer.down.stored, gate, x, rows, addend=x)

    def _add_experts(self, layer: Layer, is_normed: bool) -> None:
        program, rows, pairs = self._program, self.rows, self.rows * layer.chosen
        normed, gate, up = (array.ctypes.data for array in (self._normed, self._gate, self._up))
        logits, ids, weights, outputs = (
            array.ctypes.data for array in (self._router, self._chosen, self._weights, self._outputs)
        )
        program.product(layer.router.stored, normed, logits, rows)
        program.route(logits, (rows, layer.num_experts, layer.chosen), is_normed, ids, weights)
        inner, outer = layer.one_expert(layer.gate), layer.one_expert(layer.down)
        program.experts(inner, normed, rows, gate, ids, pairs)
        program.experts(layer.one_expert(layer.up), normed, rows, up, ids, pairs)
        program.swiglu(gate, up, pairs * inner.outputs)
        program.experts(outer, gate, pairs, outputs, ids, pairs)
        program.combine(outputs, weights, layer.chosen, outer.outputs, rows, self.x.ctypes.data)

    def run(self, num_sequences: int, longest: int, wants_logits: bool) -> Any:
        """Compute what `ids`, `rotations` and `sequences` say. Returns logits, or normalised hidden states.

        longest: rows that a query sees at most.
        """
        if num_sequences != self._num_sequences:
            for number in self._attends:
                self._program.set(number, NUM_SEQUENCES, num_sequences)
            self._num_sequences = num_sequences
        stop = None if wants_logits else self._before_logits
        self._program.run(stop=stop, scratch=4 * (longest + 16))
        return self.logits if wants_logits else self._normed
