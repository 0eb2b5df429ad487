"""Which matrices are quantized, and how: a recipe answers for each of a model's modules.

Which recipe is good for what was measured: see docs/conversion.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import QUANTIZATION_MODES, ModelConfig, Quantization

Choice = Callable[[str, int], Quantization | None]
"""(module path, row width) -> how its matrix is quantized, None to leave it as it is."""

# A router decides which experts run: an error there is not averaged away, and it is tiny.
ROUTER = "mlp.gate"
ROUTER_BITS = 8
ROUTER_GROUP_SIZES = (64, 32)

# What `mixed` gives matrices that matter most: the next widths that MLX has.
RAISED = {2: 3, 3: 4, 4: 6, 5: 6, 6: 8, 8: 8}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Recipe:
    """A named way to quantize. searched: scales and offsets are searched for (`rounding.py`), else they
    are MLX's own. is_mixed: matrices that matter most get more bits. allotted: bits of each matrix, by module
    path, where they were measured (`sensitivity.py`)."""

    name: str
    about: str
    searched: bool = False
    is_mixed: bool = False
    allotted: Mapping[str, int] = field(default_factory=dict)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("plain", "what mlx_lm.convert writes, bit for bit"),
        Recipe("searched", "plain's size, less error: scales and offsets are searched for", searched=True),
        Recipe(
            "mixed",
            "searched, with more bits for v_proj, for down_proj at both ends, and for an output head",
            searched=True,
            is_mixed=True,
        ),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`. Raises ConversionError, with the name that is nearest."""
    if name in RECIPES:
        return RECIPES[name]
    nearest = difflib.get_close_matches(name, RECIPES, 1, 0)[0]
    raise ConversionError(f"recipe {name!r} is unknown; did you mean {nearest}? There are {_list(RECIPES)}")


def check_recipe(
    recipe: Recipe, quantization: Quantization | None, is_calibrated: bool = False, has_target: bool = False
) -> None:
    """Raise ConversionError where `recipe` has nothing to work on, or settings contradict it."""
    if (recipe.searched or has_target) and (quantization is None or quantization.mode != "affine"):
        what = "a target of bits per weight" if has_target else f"recipe {recipe.name}"
        mode = "unquantized weights" if quantization is None else quantization.mode
        raise ConversionError(f"{what} is for affine quantization, not for {mode}")
    if has_target and not is_calibrated:
        raise ConversionError("a target of bits per weight needs a text to measure on", [{"calibrate": ...}])
    if has_target and recipe.is_mixed:
        raise ConversionError(f"recipe {recipe.name} chooses bits itself; with a target use searched")
    if is_calibrated and not recipe.searched and not has_target:
        raise ConversionError(f"recipe {recipe.name} makes no use of a calibration; use searched")


def choice_of(recipe: Recipe, quantization: Quantization, config: ModelConfig) -> Choice:
    """How `recipe` treats each matrix of a model, with `quantization` as its default."""
    if recipe.allotted:
        return allotted(quantization, recipe.allotted)
    if not recipe.is_mixed:
        return uniform(quantization)
    raised = uniform(replace(quantization, bits=RAISED[quantization.bits]))
    default = uniform(quantization)
    return lambda path, width: (raised if matters(path, config.num_hidden_layers) else default)(path, width)


def allotted(quantization: Quantization, bits: Mapping[str, int]) -> Choice:
    """`quantization`, with the bits that each matrix was given."""
    return lambda path, width: uniform(replace(quantization, bits=bits.get(path, quantization.bits)))(
        path, width
    )


def matters(path: str, num_layers: int) -> bool:
    """Whether `mixed` raises this matrix.

    A head that is the embedding too is left: its bits were measured to buy less than those of others.
    """
    match = LAYER.fullmatch(path)
    if match is None:
        return path == "lm_head"
    layer, name = int(match[1]), match[2]
    is_edge = min(layer, num_layers - 1 - layer) < num_layers / 8
    return name.endswith("v_proj") or (name.endswith("down_proj") and is_edge)


def quantization_for(bits: int | None, group_size: int | None, mode: str) -> Quantization | None:
    """The settings asked for: bits None is no quantization, group_size None the mode's own.

    Raises ConversionError for what MLX does not have.
    """
    if bits is None:
        if group_size is not None or mode != "affine":
            raise ConversionError("a group size or mode but no bits: nothing is quantized; give bits too")
        return None
    if mode not in QUANTIZATION_MODES:
        raise ConversionError(f"quantization mode {mode!r} is unknown; use {_list(QUANTIZATION_MODES)}")
    all_bits, group_sizes = QUANTIZATION_MODES[mode]
    if bits not in all_bits:
        raise ConversionError(f"{mode} has no {bits} bits; use {_list(all_bits)}")
    if group_size is None:
        group_size = 64 if 64 in group_sizes else group_sizes[0]
    if group_size not in group_sizes:
        raise ConversionError(f"{mode} has no groups of {group_size}; use {_list(group_sizes)}")
    return Quantization(bits, group_size, mode)


def uniform(quantization: Quantization) -> Choice:
    """Everything alike, but routers at 8 bits; rows that groups do not divide stay unquantized."""

    def choice(path: str, width: int) -> Quantization | None:
        if width % quantization.group_size:
            return None
        if path.endswith(ROUTER):
            return _router(width)
        return quantization

    return choice


def _router(width: int) -> Quantization | None:
    fitting = [size for size in ROUTER_GROUP_SIZES if width % size == 0]
    return Quantization(ROUTER_BITS, fitting[0]) if fitting else None


def _list(values: object) -> str:
    return ", ".join(map(str, values))  # type: ignore[call-overload]
