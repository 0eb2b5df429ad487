"""Packed checkpoints that are cut off, mislabelled or hostile: one line that names the fault, no output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion.test_packed import AWQ, FP8, GPTQ, integers
from packed_files import awq, fp8, gptq, packed_integers, read_file, write_file, write_packed
from tiny_checkpoints import DENSE

from mlx_qwen3.conversion import convert
from mlx_qwen3.errors import Qwen3Error

NAME = "model.layers.0.mlp.up_proj"
Arrays = dict[str, np.ndarray]
FORMS = {
    "fp8": (FP8, fp8()),
    "awq": (AWQ, awq()),
    "gptq": (GPTQ, gptq()),
    "integers": (integers(), packed_integers(symmetric=False)),
}


def lacks(leaf: str) -> Callable[[Arrays], None]:
    def change(tensors: Arrays) -> None:
        del tensors[f"{NAME}.{leaf}"]

    return change


def becomes(leaf: str, change_array: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    def change(tensors: Arrays) -> None:
        tensors[f"{NAME}.{leaf}"] = change_array(tensors[f"{NAME}.{leaf}"].copy())

    return change


def added(leaf: str, array: np.ndarray) -> Callable[[Arrays], None]:
    def change(tensors: Arrays) -> None:
        tensors[f"{NAME}.{leaf}"] = array

    return change


def filled(value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[7 % array.size] = value
        return array

    return change


CASES: dict[str, tuple[str, Callable[[Arrays], None], str]] = {
    "fp8 without scales": ("fp8", lacks("weight_scale_inv"), "lacks its weight_scale_inv"),
    "fp8 of other blocks": ("fp8", becomes("weight_scale_inv", lambda a: np.repeat(a, 3, 0)), "scales of"),
    "fp8 cut": ("fp8", becomes("weight", lambda a: a[:-1]), "config.json asks for [256, 128]"),
    "fp8 not a number": ("fp8", becomes("weight", filled(127)), "holds NaN or infinity"),
    "fp8 infinite scale": ("fp8", becomes("weight_scale_inv", filled(0x7F80)), "holds NaN or infinity"),
    "fp8 integer scales": ("fp8", becomes("weight_scale_inv", lambda a: a.astype(np.int32)), "of type I32"),
    "fp8 that is not": ("fp8", becomes("weight", lambda a: a.astype(np.float32)), "not as F8_E4M3"),
    "fp8 with a stranger": ("fp8", added("qweight", np.zeros((16, 256), np.int32)), "unexpected"),
    "awq without zeros": ("awq", lacks("qzeros"), "lacks qzeros"),
    "awq without words": ("awq", lacks("qweight"), "lacks qweight"),
    "awq of five bits": ("awq", becomes("qweight", lambda a: a[:, :-1]), "is no 2 or 4 or 8 bits"),
    "awq with few scales": ("awq", becomes("scales", lambda a: a[:, 1:]), "has scales of shape [2, 255]"),
    "awq with no scales": ("awq", becomes("scales", lambda a: a[:0]), "0 groups of scales"),
    "awq in one dimension": ("awq", becomes("qweight", lambda a: a.reshape(-1)), "is no 2 or 4 or 8 bits"),
    "awq nan": ("awq", becomes("scales", filled(np.nan)), "holds NaN or infinity"),
    "awq with float words": ("awq", becomes("qweight", lambda a: a.astype(np.float32)), "of type F32"),
    "awq and whole": ("awq", added("weight", np.zeros((256, 128), np.float32)), "beside the parts"),
    "gptq with wild groups": ("gptq", becomes("g_idx", filled(99)), "has inputs of group 99, but 2 groups"),
    "gptq with negative groups": ("gptq", becomes("g_idx", filled(-5)), "has inputs of group"),
    "gptq in secret order": ("gptq", becomes("g_idx", lambda a: a[::-1]), "has groups in another order"),
    "gptq with few groups": ("gptq", becomes("g_idx", lambda a: a[1:]), "has g_idx of shape [127]"),
    "gptq with other zeros": ("gptq", becomes("qzeros", lambda a: a[:, :1]), "has qzeros of shape [2, 1]"),
    "integers without scales": ("integers", lacks("weight_scale"), "lacks weight_scale"),
    "integers cut": ("integers", becomes("weight_packed", lambda a: a[:-1]), "is no 2 or 4 or 8 bits"),
    "integers with zeros for others": ("integers", becomes("weight_zero_point", lambda a: a.T), "zero_point"),
    "integers inf": ("integers", becomes("weight_scale", filled(np.inf)), "holds NaN or infinity"),
}  # fmt: skip


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(Qwen3Error) as error:
        convert(folder, folder.parent / "out", **options)
    assert not (folder.parent / "out").exists()
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name], "a temporary folder is left"
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("case", CASES)
def test_tensors_that_do_not_belong(tmp_path: Path, case: str) -> None:
    form, change, problem = CASES[case]
    folder = tmp_path / "source"
    write_packed(folder, DENSE, *FORMS[form])
    tensors = read_file(folder / "model.safetensors")
    change(tensors)
    write_file(folder / "model.safetensors", {name: np.ascontiguousarray(a) for name, a in tensors.items()})
    message = refused(folder)
    assert problem in message
    assert NAME in message


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_off(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "source"
    write_packed(folder, DENSE, *FORMS[form])
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged or cut off" in refused(folder)


@pytest.mark.parametrize(
    ("quantization", "problem"),
    [
        ({"quant_method": "bitsandbytes"}, "quantized with 'bitsandbytes', which this package does not read"),
        ({"quant_method": ["gptq"]}, "quantized with ['gptq'], which this package does not read"),
        (AWQ | {"version": "gemv"}, "AWQ version 'gemv' is not read"),
        (GPTQ | {"checkpoint_format": "marlin"}, "GPTQ's checkpoint_format 'marlin' is not read"),
        (GPTQ | {"desc_act": "yes"}, "desc_act must be true or false"),
        (FP8 | {"fmt": "e5m2"}, "FP8 format 'e5m2' is not read"),
        (FP8 | {"weight_block_size": [128]}, "weight_block_size must be two numbers"),
        (FP8 | {"weight_block_size": [0, 128]}, "weight_block_size must be two numbers"),
        (FP8 | {"weight_block_size": [2**40, 1]}, "weight_block_size must be two numbers"),
        (integers() | {"format": "nvfp4-pack-quantized"}, "compressed-tensors format 'nvfp4-pack-quantized'"),
        (integers() | {"quantization_status": "frozen"}, "quantization_status is 'frozen'"),
        (integers() | {"config_groups": [1]}, "config_groups must be an object"),
        (GPTQ, "is no 2 or 4 or 8 bits"),
        (FP8, "which is not how fp8 stores it"),
    ],
)
def test_a_config_that_does_not_say_how(tmp_path: Path, quantization: dict[str, Any], problem: str) -> None:
    folder = tmp_path / "source"
    write_packed(folder, DENSE, quantization, awq())
    assert problem in refused(folder)


def test_a_config_of_other_weights(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    write_packed(folder, DENSE, AWQ, lambda weights, random: ({"weight": weights}, weights))
    assert "says that the weights are quantized with awq, but none is" in refused(folder)
    write_packed(folder, DENSE, AWQ, awq())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert "unexpected model.layers.1" in refused(folder)
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "has no `quantization` that says how" in refused(folder)
