"""Matrices that take the same input, multiplied as one: q/k/v, and gate/up.

Exact: a product's rows do not meet, and quantization groups run along the input. The joined matrix is
the only copy; the modules it was made of keep their names, and their arrays become views of it.
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
"""The axis of a matrix (.., out, in), and of its scales and offsets, along which matrices are joined."""


class Folding(nn.Module):
    """A module whose `together` name projections of one input."""

    together: tuple[str, ...] = ()
    _fold: Fold | None = None

    def fold(self) -> None:
        """Multiply the projections as one matrix from now on, until one of them is replaced or changed.

        Evaluates their weights. A weight written to in place (`weight[0] = ...`) is not noticed;
        assign it anew.
        """
        self._fold = Fold(self._projections())

    def project(self, x: mx.array, *arguments: Any) -> list[mx.array]:
        """What each of the projections makes of `x`."""
        modules = self._projections()
        if self._fold is not None:
            if self._fold.is_of(modules):
                return self._fold(x, *arguments)
            self._fold.release()
            self._fold = None
        return [module(x, *arguments) for module in modules]

    def _projections(self) -> list[nn.Module]:
        return [self[name] for name in self.together]


class Fold:
    """Neighbouring modules of the same kind and format joined; those unlike their neighbours stay alone."""

    def __init__(self, modules: Sequence[nn.Module]):
        self._modules = list(modules)
        groups = [list(group) for _, group in groupby(modules, key=_layout)]
        self._joined = [(_join(group), _ends(group)) for group in groups]
        self._arrays = list(_arrays(modules))

    def is_of(self, modules: Sequence[nn.Module]) -> bool:
        """Whether it was made of these very modules, and they still hold its arrays."""
        same = all(a is b for a, b in zip(modules, self._modules, strict=True))
        return same and all(a is b for a, b in zip(_arrays(modules), self._arrays, strict=True))

    def __call__(self, x: mx.array, *arguments: Any) -> list[mx.array]:
        """What each module would make of `x`."""
        outputs: list[mx.array] = []
        for module, ends in self._joined:
            y = module(x, *arguments)
            outputs += mx.split(y, ends, axis=-1) if ends else [y]
        return outputs

    def release(self) -> None:
        """Give views of experts, which lie apart from each other, memory of their own again."""
        for module in self._modules:
            for name in MATRICES:
                array = module.get(name)
                if array is not None and array.ndim > 2 and any(array is held for held in self._arrays):
                    module[name] = mx.contiguous(array)


def _layout(module: nn.Module) -> object:
    """Equal for modules that can be joined; of its own for one that cannot be."""
    weight = module.get("weight")
    if weight is None or "bias" in module or module.children():
        return id(module)
    settings = [getattr(module, name, None) for name in ("group_size", "bits", "mode")]
    shapes = [
        (array.shape[:-2], array.shape[-1], array.dtype) for array in _arrays([module]) if array is not None
    ]
    return type(module), *settings, *shapes


def _arrays(modules: Sequence[nn.Module]) -> Iterator[mx.array | None]:
    """Weight, scales, offsets and bias of each, None for what it has not."""
    return (module.get(name) for module in modules for name in (*MATRICES, "bias"))


def _ends(group: list[nn.Module]) -> list[int]:
    """Where each module's outputs end but the last's."""
    return list(accumulate(module.weight.shape[OUTPUTS] for module in group))[:-1]


def _join(group: list[nn.Module]) -> nn.Module:
    """One module that holds the rows of all; their own arrays become views of its."""
    if len(group) == 1:
        return group[0]
    joined = copy.copy(group[0])
    for name in MATRICES:
        if joined.get(name) is not None:
            joined[name] = mx.concatenate([module[name] for module in group], axis=OUTPUTS)
            mx.eval(joined[name])
            views = mx.split(joined[name], _ends(group), axis=OUTPUTS)
            mx.eval(views)
            for module, view in zip(group, views, strict=True):
                module[name] = view
    return joined
