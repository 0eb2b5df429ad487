"""Recipes: which matrices of a model are quantized, and how. docs/conversion.md has their measurements."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import ModelConfig, Quantization

Choice = Callable[[str, int], Quantization | None]
"""(module path, row width) -> the quantization of its matrix, None to leave it unquantized."""

# A router decides which experts run, so its errors are not averaged out. It is tiny.
ROUTER = "mlp.gate"
ROUTER_BITS = 8
ROUTER_GROUP_SIZES = (64, 32)

# `mixed`: bits of the matrices whose rounding costs most, by the bits of the rest.
RAISED_BITS = {2: 3, 3: 4, 4: 6, 5: 6, 6: 8, 8: 8}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Recipe:
    """A named way to quantize."""

    name: str
    about: str
    searched: bool = False  # search for scales and biases (quantize/search.py), or take MLX's own
    is_mixed: bool = False  # more bits for the matrices whose rounding costs most
    bits_by_path: Mapping[str, int] = field(default_factory=dict)  # measured (quantize/bit_allocation.py)


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
    """The recipe called `name`. Raises ConversionError, which names the closest recipe."""
    if name in RECIPES:
        return RECIPES[name]
    nearest = difflib.get_close_matches(name, RECIPES, 1, 0)[0]
    known = ", ".join(RECIPES)
    raise ConversionError(f"recipe {name!r} is unknown; did you mean {nearest}? Recipes are {known}")


def check_recipe(
    recipe: Recipe, quantization: Quantization | None, is_calibrated: bool = False, has_target: bool = False
) -> None:
    """Raise ConversionError if `recipe` does not fit the quantization, the calibration or the target."""
    if (recipe.searched or has_target) and (quantization is None or quantization.mode != "affine"):
        what = "a target of bits per weight" if has_target else f"recipe {recipe.name}"
        mode = "unquantized weights" if quantization is None else quantization.mode
        raise ConversionError(f"{what} is for affine quantization, not for {mode}")
    if has_target and not is_calibrated:
        raise ConversionError("a target of bits per weight needs a text to measure on", [{"calibrate": ...}])
    if has_target and recipe.is_mixed:
        raise ConversionError(
            f"recipe {recipe.name} chooses bits itself, so it takes no target", [{"recipe": "searched"}]
        )
    if is_calibrated and not recipe.searched and not has_target:
        raise ConversionError(f"recipe {recipe.name} makes no use of a calibration", [{"recipe": "searched"}])


def choice_of(recipe: Recipe, quantization: Quantization, config: ModelConfig) -> Choice:
    """How `recipe` quantizes each matrix of a model, where `quantization` is the default.

    Rows whose width is not a multiple of the group size stay unquantized.
    """

    def choice(path: str, width: int) -> Quantization | None:
        if width % quantization.group_size:
            return None
        if path.endswith(ROUTER):
            return _router_quantization(width)
        bits = recipe.bits_by_path.get(path, quantization.bits)
        if recipe.is_mixed and matters(path, config.num_hidden_layers):
            bits = RAISED_BITS[quantization.bits]
        return replace(quantization, bits=bits)

    return choice


def matters(path: str, num_layers: int) -> bool:
    """Whether `mixed` gives this matrix more bits.

    Not an output head that is the embedding too: measured, its bits reduce the error less than others.
    """
    match = LAYER.fullmatch(path)
    if match is None:
        return path == "lm_head"
    layer, name = int(match[1]), match[2]
    is_edge = min(layer, num_layers - 1 - layer) < num_layers / 8
    return name.endswith("v_proj") or (name.endswith("down_proj") and is_edge)


def _router_quantization(width: int) -> Quantization | None:
    fitting = [size for size in ROUTER_GROUP_SIZES if width % size == 0]
    return Quantization(ROUTER_BITS, fitting[0]) if fitting else None
