"""FP8, AWQ and GPTQ checkpoints, dense and MoE: converted, repacked and loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from packed_files import awq, fp8, gptq, packed_integers, read_file, write_file, write_packed
from tiny_checkpoints import DENSE, MOE, logits, read_tensors, save_shards

import mlx_qwen3.conversion.source.chunks as chunks
from mlx_qwen3 import load_model
from mlx_qwen3.conversion import convert, plan
from mlx_qwen3.errors import CheckpointError

WIDE = {"dense": DENSE | {"intermediate_size": 320}, "moe": MOE | {"moe_intermediate_size": 128}}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": False}
FLOATS = {"quant_method": "compressed-tensors", "format": "float-quantized"}


def integers(bits: int = 4, order: str | None = None) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": 64, "actorder": order}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}


FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "fp8": (FP8, fp8()),
    "fp8-float32-scales": (FP8, fp8(scale_dtype="float32")),
    "fp8-small-blocks": (FP8 | {"weight_block_size": [48, 32]}, fp8((48, 32))),
    "fp8-whole": ({"quant_method": "fp8"}, fp8(None, "float32")),
    "awq": (AWQ, awq()),
    "awq-8": (AWQ | {"bits": 8}, awq(8)),
    "awq-32": (AWQ | {"group_size": 32}, awq(4, 32)),
    "gptq": (GPTQ, gptq()),
    "gptq-symmetric": (GPTQ | {"sym": True}, gptq(symmetric=True)),
    "gptq-8": (GPTQ | {"bits": 8}, gptq(8)),
    "gptq-2": (GPTQ | {"bits": 2}, gptq(2, 32)),
    "gptq-whole-rows": (GPTQ | {"group_size": -1}, gptq(4, -1)),
    "gptq-order": (GPTQ | {"desc_act": True}, gptq(order=True)),
    "integers": (integers(), packed_integers()),
    "integers-8-zeros": (integers(8), packed_integers(8, symmetric=False)),
    "integers-zeros": (integers(), packed_integers(symmetric=False)),
    "integers-rows": (integers(8), packed_integers(8, -1)),
    "integers-order": (integers(order="group"), packed_integers(order=True)),
    "float-rows": (FLOATS, fp8((1, 10**6), leaf="weight_scale")),
    "float-whole": (FLOATS, fp8(None, "float32", leaf="weight_scale")),
    "gptq-v2": (GPTQ | {"checkpoint_format": "gptq_v2"}, gptq(version=2)),
}  # fmt: skip
DIRECT = [name for name in FORMS if not name.startswith(("fp8", "float")) and "order" not in name]
SYMMETRIC = ("gptq-symmetric", "integers", "integers-rows")


def bits_of(quantization: dict[str, Any]) -> int:
    groups = quantization.get("config_groups")
    bits: int = groups["group_0"]["weights"]["num_bits"] if groups else quantization["bits"]
    return bits


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks begin within a word of AWQ and within a block of FP8."""
    monkeypatch.setattr(chunks, "chunk_bytes", lambda: 5_000)


def meant_model(folder: Path, raw: dict[str, Any], meant: dict[str, mx.array]) -> Any:
    """The model with the weights that a packed checkpoint stands for."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    save_shards(folder, meant)
    return load_model(folder)


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        *((form, "dense") for form in FORMS),
        *((form, "moe") for form in ("fp8", "awq", "gptq-order", "integers")),
    ],
)
def test_a_conversion_without_quantization_is_what_the_file_stands_for(tmp_path, form, kind):
    quantization, pack = FORMS[form]
    meant = write_packed(tmp_path / "source", WIDE[kind], quantization, pack, shards=2)
    convert(tmp_path / "source", tmp_path / "out", bits=None, dtype="float32", verify=False)
    ours = read_tensors(tmp_path / "out")
    stacked = {name: value for name, value in ours.items() if "switch_mlp" not in name}
    for name, value in stacked.items():
        np.testing.assert_allclose(np.array(value), np.array(meant[name]), atol=1e-6, err_msg=name)
    expected = logits(meant_model(tmp_path / "meant", WIDE[kind], meant))
    np.testing.assert_allclose(logits(load_model(tmp_path / "out")), expected, atol=1e-4)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


@pytest.mark.parametrize("form", ["awq", "awq-8", "gptq", "gptq-whole-rows", "integers", "integers-zeros"])
def test_the_same_bits_are_repacked_without_loss(tmp_path, form):
    quantization, pack = FORMS[form]
    kind = "moe" if form in ("awq", "gptq") else "dense"
    meant = write_packed(tmp_path / "source", WIDE[kind], quantization, pack)
    report = convert(tmp_path / "source", tmp_path / "out", bits=bits_of(quantization), group_size=32)
    assert report.verification is not None
    errors = {check.name: check.error for check in report.verification.tensors}
    packed = [error for name, error in errors.items() if "_proj" in name]
    assert packed
    assert max(packed) < 1e-6
    out = read_tensors(tmp_path / "out")
    name = "model.layers.1.self_attn.v_proj"
    dense = mx.dequantize(
        *(out[f"{name}.{leaf}"] for leaf in ("weight", "scales", "biases")),
        group_size=32,
        bits=bits_of(quantization),
    )
    np.testing.assert_allclose(np.array(dense), np.array(meant[f"{name}.weight"]), atol=1e-5)


@pytest.mark.parametrize("form", DIRECT)
def test_what_mlx_can_hold_loads_directly(tmp_path, form):
    quantization, pack = FORMS[form]
    kind = "moe" if form in ("awq", "gptq-8") else "dense"
    meant = write_packed(tmp_path / "source", WIDE[kind], quantization, pack)
    expected = logits(meant_model(tmp_path / "meant", WIDE[kind], meant))
    model = load_model(tmp_path / "source")
    assert model.args.quantization.bits == bits_of(quantization)
    # Zeros times scales are rounded to the 16 bits of the scales, which those of symmetric forms fit.
    np.testing.assert_allclose(logits(model), expected, atol=1e-4 if form in SYMMETRIC else 5e-2)


def test_mlx_lm_loads_awq_alike(tmp_path):
    """The one of these forms that it reads."""
    from mlx_lm.utils import load_model as theirs

    write_packed(tmp_path, DENSE, *FORMS["awq"])
    ours, other = load_model(tmp_path).layers[1], theirs(tmp_path)[0].layers[1]
    for module in ("q_proj", "o_proj"):
        for leaf in ("weight", "scales", "biases"):
            array, expected = ours.self_attn[module][leaf], other.self_attn[module][leaf]
            assert mx.array_equal(array.astype(expected.dtype), expected), (module, leaf)


@pytest.mark.parametrize("form", ["fp8", "gptq-order", "integers-order", "float-rows"])
def test_what_mlx_cannot_hold_says_to_convert(tmp_path, form):
    write_packed(tmp_path, DENSE, *FORMS[form])
    with pytest.raises(CheckpointError, match=r"cannot run as it is .*convert it first: mlx-qwen3 convert"):
        load_model(tmp_path)


def test_fp8_of_fused_experts(tmp_path):
    """As transformers 5 holds them: matrices and scales of all experts in one tensor."""
    raw = WIDE["moe"]
    write_packed(tmp_path / "source", raw, FP8, fp8())
    plain = convert(tmp_path / "source", tmp_path / "plain", bits=None, dtype="float32", verify=False)
    stored = read_file(tmp_path / "source" / "model.safetensors")
    for layer in (0, 2):
        prefix = f"model.layers.{layer}.mlp.experts"
        for leaf, suffix in (("weight", ""), ("weight_scale_inv", "_scale_inv")):

            def take(part, prefix=prefix, leaf=leaf):
                return [stored.pop(f"{prefix}.{i}.{part}_proj.{leaf}") for i in range(raw["num_experts"])]

            gates, ups = take("gate"), take("up")
            stored[f"{prefix}.gate_up_proj{suffix}"] = np.stack(
                [np.concatenate(pair) for pair in zip(gates, ups, strict=True)]
            )
            stored[f"{prefix}.down_proj{suffix}"] = np.stack(take("down"))
    (tmp_path / "fused").mkdir()
    shutil.copy(tmp_path / "source" / "config.json", tmp_path / "fused")
    write_file(tmp_path / "fused" / "model.safetensors", stored)
    convert(tmp_path / "fused", tmp_path / "out", bits=None, dtype="float32", verify=False)
    np.testing.assert_array_equal(logits(load_model(tmp_path / "out")), logits(load_model(plain.output)))


def test_the_plan_says_what_is_repacked(tmp_path):
    write_packed(tmp_path, DENSE, *FORMS["awq"])
    steps = {step.name: step for step in plan(tmp_path, bits=4).steps}
    assert steps["model.layers.0.self_attn.q_proj.weight"].repacked
    assert not steps["model.embed_tokens.weight"].repacked
    assert not any(step.repacked for step in plan(tmp_path, bits=8).steps)
    assert not any(step.repacked for step in plan(tmp_path, bits=4, group_size=128).steps)
    assert not any(step.repacked for step in plan(tmp_path, mode="mxfp4").steps)
