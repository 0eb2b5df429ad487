"""Fuses matrices that take the same input into one product: q/k/v, and gate/up.

The result is exact: rows of a product do not mix, and quantization groups run along the input. The fused
matrix is the only copy. The projections keep their names, and their arrays become views of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import mlx.core as mx
import mlx.nn as nn

MATRICES = ("weight", "scales", "biases")
OUTPUTS = -2
"""The output axis of a matrix (..., out, in), of its scales and of its biases; they are joined along it."""


class FusedProjections(nn.Module):
    """A module with projections of one input, named by `fused`, that can be multiplied as one matrix."""

    fused: tuple[str, ...] = ()
    _fused_matrices: FusedMatrices | None = None

    def fuse(self) -> None:
        """Multiply the projections as one matrix from now on, until one of them is replaced or changed.

        Evaluates their weights. A write into a weight (`weight[0] = ...`) is not noticed: assign the
        weight anew instead.
        """
        self._fused_matrices = FusedMatrices(self._projections())

    def set_aside(self) -> FusedMatrices | None:
        """Multiply the projections one by one until `take_back`. Returns what was fused."""
        fused, self._fused_matrices = self._fused_matrices, None
        return fused

    def take_back(self, fused: FusedMatrices) -> None:
        """Multiply as before `set_aside`."""
        self._fused_matrices = fused

    def split_experts(self) -> bool:
        """Undo the fusing of experts, whose parts would be slow alone. Returns whether they were fused."""
        fused = self._fused_matrices
        if fused is None or not fused.has_experts:
            return False
        fused.release()
        self._fused_matrices = None
        return True

    def project(self, x: mx.array, *arguments: Any) -> list[mx.array]:
        """The output of each projection for input `x` (..., in)."""
        projections = self._projections()
        if self._fused_matrices is not None:
            if self._fused_matrices.is_of(projections):
                return self._fused_matrices(x, *arguments)
            self._fused_matrices.release()
            self._fused_matrices = None
        return [projection(x, *arguments) for projection in projections]

    def _projections(self) -> list[nn.Module]:
        return [self[name] for name in self.fused]


class FusedMatrices:
    """Neighbouring modules of one type and format, joined. A module unlike its neighbours stays alone."""

    def __init__(self, modules: Sequence[nn.Module]):
        self._modules = list(modules)
        groups = [list(group) for _, group in groupby(modules, key=_layout)]
        self._joined = [(_join(group), _split_points(group)) for group in groups]
        self._arrays = list(_arrays(modules))

    def is_of(self, modules: Sequence[nn.Module]) -> bool:
        """Whether these are the modules that were joined, with the arrays they had then."""
        are_same = all(a is b for a, b in zip(modules, self._modules, strict=True))
        return are_same and all(a is b for a, b in zip(_arrays(modules), self._arrays, strict=True))

    @property
    def has_experts(self) -> bool:
        """Whether the matrices are those of experts."""
        return any(array is not None and array.ndim > 2 for array in self._arrays)

    def __call__(self, x: mx.array, *arguments: Any) -> list[mx.array]:
        """The output of each module."""
        outputs: list[mx.array] = []
        for module, split_points in self._joined:
            y = module(x, *arguments)
            outputs += mx.split(y, split_points, axis=-1) if split_points else [y]
        return outputs

    def release(self) -> None:
        """Copy the views of experts into memory of their own.

        These views are not contiguous, and MLX would copy them for every product.
        """
        for module in self._modules:
            for name in MATRICES:
                array = module.get(name)
                if array is not None and array.ndim > 2 and any(array is view for view in self._arrays):
                    module[name] = mx.contiguous(array)


def _layout(module: nn.Module) -> object:
    """Equal for modules that can be joined; unique for a module that cannot be."""
    weight = module.get("weight")
    if weight is None or "bias" in module or module.children():
        return id(module)
    quantization = [getattr(module, name, None) for name in ("group_size", "bits", "mode")]
    shapes = [
        (array.shape[:-2], array.shape[-1], array.dtype) for array in _arrays([module]) if array is not None
    ]
    return type(module), *quantization, *shapes


def _arrays(modules: Sequence[nn.Module]) -> Iterator[mx.array | None]:
    """Weight, scales, biases and bias of each module; None for an array it does not have."""
    return (module.get(name) for module in modules for name in (*MATRICES, "bias"))


def _split_points(group: list[nn.Module]) -> list[int]:
    """Where the outputs of one module end and those of the next begin."""
    return list(accumulate(module.weight.shape[OUTPUTS] for module in group))[:-1]


def _join(group: list[nn.Module]) -> nn.Module:
    """One module that holds the rows of all; the arrays of `group` become views of its arrays."""
    if len(group) == 1:
        return group[0]
    joined = copy.copy(group[0])
    for name in MATRICES:
        if joined.get(name) is not None:
            joined[name] = mx.concatenate([module[name] for module in group], axis=OUTPUTS)
            mx.eval(joined[name])
            views = mx.split(joined[name], _split_points(group), axis=OUTPUTS)
            mx.eval(views)
            for module, view in zip(group, views, strict=True):
                module[name] = view
    return joined
