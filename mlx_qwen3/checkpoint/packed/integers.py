"""AWQ, GPTQ and compressed-tensors: whole numbers of 2, 4 or 8 bits, (q - zero) * scale for each group.

Where the bits are (in: inputs, out: outputs, a word has 32 bits):

    qweight (in * bits / 32, out)     GPTQ: a word has neighbouring inputs, the first lowest
    qweight (in, out * bits / 32)     AWQ: a word has neighbouring outputs, in the order INTERLEAVED
    weight_packed (out, in * bits / 32)   compressed-tensors: neighbouring inputs, 2^(bits - 1) added
    qzeros (groups, out * bits / 32)  AWQ as its weights; GPTQ: neighbouring outputs, the first lowest
    weight_zero_point (out * bits / 32, groups)   neighbouring outputs, 2^(bits - 1) added
    scales (groups, out), weight_scale (out, groups)
    g_idx, weight_g_idx (in,)         the group of each input; without them groups are neighbours

GPTQ's first version stores zeros less one in each field, with a borrow from the next (AutoGPTQ, GPTQModel).
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_qwen3.checkpoint.packed.matrix import PackedMatrix, PartReader
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.model.quantization import Packing, Quantization

BITS = (2, 4, 8)
# Place of each output in AWQ's words, the lowest bits first.
INTERLEAVED = {4: (0, 2, 4, 6, 1, 3, 5, 7), 8: (0, 2, 1, 3)}
MLX_BITS, MLX_GROUPS = (2, 4, 8), (128, 64, 32)
WORDS = ("I32", "U32")
LEAVES = {
    "awq": ("qweight", "scales", "qzeros", ""),
    "gptq": ("qweight", "scales", "qzeros", "g_idx"),
    "compressed-tensors": ("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx"),
}
"""Names of weights, scales, zeros and the order of groups."""


@dataclass(frozen=True)
class IntegerMatrix(PackedMatrix):
    """Whole numbers of `bits` bits, and a scale for each `group_size` inputs."""

    packing: Packing
    bits: int
    group_size: int

    @classmethod
    def of(
        cls, name: str, shape: tuple[int, int], parts: dict[str, StoredTensor], packing: Packing
    ) -> IntegerMatrix:
        """The matrix with these parts. Raises CheckpointError unless their shapes and types agree."""
        outputs, inputs = shape
        matrix = cls(name, shape, parts, packing, 0, 0)
        if missing := [leaf for leaf in matrix._needed() if leaf not in parts]:
            raise matrix.refuse(f"lacks {missing[0]}; download it again")
        bits = matrix._bits_by_shape()
        if bits not in BITS or (packing.method == "awq" and bits not in INTERLEAVED):
            raise matrix.refuse(
                f"is stored in {list(matrix.main.shape)} words, which for its shape {list(shape)} in "
                f"config.json is no {' or '.join(map(str, BITS))} bits"
            )
        _, scales, zeros, order = LEAVES[packing.method]
        is_transposed = packing.method == "compressed-tensors"
        groups = parts[scales].shape[-1 if is_transposed else 0] if parts[scales].shape else 0
        if not groups or inputs % groups:
            raise matrix.refuse(f"has {groups:,} groups of scales for {inputs:,} inputs")
        group_size = inputs // groups
        expected = {scales: (groups, outputs), zeros: (groups, outputs * bits // 32)}
        if is_transposed:
            expected = {leaf: each[::-1] for leaf, each in expected.items()}
        for leaf, part in parts.items():
            wanted = expected.get(leaf, (inputs,) if leaf == order else part.shape)
            if part.shape != wanted:
                raise matrix.refuse(
                    f"has {leaf} of shape {list(part.shape)}, but {list(wanted)} belongs to it"
                )
            types = ("F16", "BF16", "F32") if leaf == scales else WORDS
            if leaf != "weight_shape" and part.dtype not in types:
                raise matrix.refuse(f"has {leaf} of type {part.dtype}, not {' or '.join(types)}")
        return cls(name, shape, parts, packing, bits, group_size)

    @property
    def main(self) -> StoredTensor:
        return self.parts.get(LEAVES[self.packing.method][0]) or next(iter(self.parts.values()))

    @property
    def dtype(self) -> mx.Dtype:
        return mx.bfloat16 if self._scales.dtype == "BF16" else mx.float16

    @property
    def quantization(self) -> Quantization | None:
        """MLX's affine quantization with the same bits, in the largest groups that divide these."""
        fitting = [group for group in MLX_GROUPS if self.group_size % group == 0]
        if self.packing.has_order or not fitting:
            return None
        return Quantization(self.bits, fitting[0])

    def rows(self, reader: PartReader, first: int, count: int) -> mx.array:
        groups = self._groups(reader)
        scales, zeros = self._scales_and_zeros(reader, first, count)
        integers = self._integers(reader, first, count).astype(mx.float32)
        return (integers - zeros[:, groups]) * scales[:, groups]

    def mlx_rows(
        self, reader: PartReader, first: int, count: int, quantization: Quantization
    ) -> tuple[mx.array, mx.array, mx.array]:
        if not self._is_in_order(reader):
            raise self.refuse("has groups in another order, although config.json says that they are not")
        integers = self._integers(reader, first, count).reshape(count, -1, 32 // self.bits)
        words = (integers << mx.arange(0, 32, self.bits, dtype=mx.uint32)).sum(axis=-1).astype(mx.uint32)
        scales, zeros = self._scales_and_zeros(reader, first, count)
        repeats = self.group_size // quantization.group_size
        scales, biases = (mx.repeat(part, repeats, axis=1) for part in (scales, -scales * zeros))
        return words, scales, biases

    @property
    def _scales(self) -> StoredTensor:
        return self.parts[LEAVES[self.packing.method][1]]

    def _needed(self) -> tuple[str, ...]:
        weight, scales, zeros, _ = LEAVES[self.packing.method]
        return (weight, scales) if self.packing.method == "compressed-tensors" else (weight, scales, zeros)

    def _bits_by_shape(self) -> int:
        """Bits of a number, from the shape of the words; 0 if that is none."""
        outputs, inputs = self.shape
        words = self.main.shape
        if len(words) != 2:
            return 0
        long, axis = {"gptq": (inputs, 0), "awq": (outputs, 1)}.get(self.packing.method, (inputs, 1))
        other = self.shape[0] if self.packing.method != "awq" else inputs
        if words[1 - axis] != other or (words[axis] * 32) % long:
            return 0
        return words[axis] * 32 // long

    def _integers(self, reader: PartReader, first: int, count: int) -> mx.array:
        """The stored numbers of some rows as uint32: (count, in)."""
        method, per_word = self.packing.method, 32 // self.bits
        numbers: mx.array
        if method == "compressed-tensors":
            words = reader.read(self.main, first, count).view(mx.uint32)
            numbers = self._fields(words).reshape(count, -1)
            return numbers
        if method == "gptq":
            words = mx.array(np.ascontiguousarray(reader.whole(self.main)[:, first : first + count]))
            numbers = self._fields(words).transpose(1, 0, 2).reshape(count, -1)
            return numbers
        start, stop = first // per_word, -(-(first + count) // per_word)
        words = mx.array(np.ascontiguousarray(reader.whole(self.main)[:, start:stop]))
        outputs = self._outputs_of_words(words)  # (in, outputs of these words)
        numbers = outputs[:, first - start * per_word :][:, :count].T
        return numbers

    def _fields(self, words: mx.array) -> mx.array:
        """Words (...) -> the numbers in each, the lowest bits first: (..., 32 / bits)."""
        shifts = mx.arange(0, 32, self.bits, dtype=mx.uint32)
        return (words[..., None] >> shifts) & (2**self.bits - 1)

    def _outputs_of_words(self, words: mx.array) -> mx.array:
        """AWQ's words (n, m) -> the numbers in the order of the outputs: (n, m * 32 / bits)."""
        places = np.argsort(INTERLEAVED[self.bits]).tolist()
        return self._fields(words)[..., mx.array(places)].reshape(words.shape[0], -1)

    def _scales_and_zeros(self, reader: PartReader, first: int, count: int) -> tuple[mx.array, mx.array]:
        """Scales and zeros of some rows in fp32: (count, groups) each."""
        rows = slice(first, first + count)
        if self.packing.method == "compressed-tensors":
            scales = reader.numbers(self._scales, rows).astype(mx.float32)
            return scales, self._offset_zeros(reader, first, count, scales.shape)
        scales = reader.numbers(self._scales, columns=rows).astype(mx.float32).T
        return scales, self._zeros(reader, first, count).T.astype(mx.float32)

    def _zeros(self, reader: PartReader, first: int, count: int) -> mx.array:
        """Zeros of AWQ and GPTQ for some rows: (groups, count)."""
        per_word = 32 // self.bits
        start, stop = first // per_word, -(-(first + count) // per_word)
        words = mx.array(np.ascontiguousarray(reader.whole(self.parts["qzeros"])[:, start:stop]))
        if self.packing.method == "awq":
            zeros = self._outputs_of_words(words)
        else:
            if self.packing.zeros_less_one:
                words = words + sum(1 << shift for shift in range(0, 32, self.bits))
            zeros = self._fields(words).reshape(words.shape[0], -1)
        return zeros[:, first - start * per_word :][:, :count]

    def _offset_zeros(self, reader: PartReader, first: int, count: int, shape: tuple[int, ...]) -> mx.array:
        """Zeros of compressed-tensors for some rows: (count, groups)."""
        part = self.parts.get("weight_zero_point")
        if part is None:  # symmetric
            return mx.full(shape, 2.0 ** (self.bits - 1))
        per_word = 32 // self.bits
        start, stop = first // per_word, -(-(first + count) // per_word)
        words = mx.array(np.ascontiguousarray(reader.whole(part)[start:stop]))
        zeros = self._fields(words).transpose(0, 2, 1).reshape(-1, words.shape[1])
        return zeros[first - start * per_word :][:count].astype(mx.float32)

    def _groups(self, reader: PartReader) -> mx.array:
        """The group of each input: (in,). Raises CheckpointError for a group that has no scale."""
        part = self.parts.get(LEAVES[self.packing.method][3])
        if part is None:
            return mx.arange(self.shape[1], dtype=mx.uint32) // self.group_size
        groups = reader.whole(part).reshape(-1).view(np.int32)
        if (groups == -1).all():  # compressed-tensors' way to say that there is no order
            return mx.arange(self.shape[1], dtype=mx.uint32) // self.group_size
        count = self.shape[1] // self.group_size
        if groups.min() < 0 or groups.max() >= count:
            raise self.refuse(f"has inputs of group {groups.max()}, but {count} groups; download it again")
        return mx.array(groups.astype(np.uint32))

    def _is_in_order(self, reader: PartReader) -> bool:
        in_order = mx.arange(self.shape[1], dtype=mx.uint32) // self.group_size
        return bool(mx.array_equal(self._groups(reader), in_order).item())
