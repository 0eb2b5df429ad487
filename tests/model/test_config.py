"""config.json: both spellings, the family's sizes, and every refusal by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from parity.model_cases import DENSE, MOE

from mlx_qwen3.bench.shapes import SHAPES
from mlx_qwen3.errors import ConfigError
from mlx_qwen3.model.config import ModelConfig, Quantization, RopeScaling
from mlx_qwen3.model.qwen3 import Model

# Published parameter counts, tied output heads counted once.
FAMILY = {
    "0.6b": 596_049_920,
    "1.7b": 1_720_574_976,
    "4b": 4_022_468_096,
    "8b": 8_190_735_360,
    "14b": 14_768_307_200,
    "32b": 32_762_123_264,
    "30b-a3b": 30_532_122_624,
    "235b-a22b": 235_093_634_560,
}
ACTIVE = {"14b": 14_768_307_200, "30b-a3b": 3_353_032_704, "235b-a22b": 22_190_763_520}


@pytest.mark.parametrize("shape", FAMILY)
def test_every_member_of_the_family_builds_with_its_parameters(shape: str) -> None:
    config = ModelConfig.from_dict(SHAPES[shape].config_json())
    before = mx.get_active_memory()
    tree = tree_flatten(Model(config).parameters())  # lazy: 235B in no time and no memory
    assert sum(value.size for _, value in tree) == FAMILY[shape]
    assert config.num_parameters == FAMILY[shape]
    assert mx.get_active_memory() - before < 1e6


@pytest.mark.parametrize("shape", ACTIVE)
def test_active_parameters(shape: str) -> None:
    assert ModelConfig.from_dict(SHAPES[shape].config_json()).num_active_parameters == ACTIVE[shape]


def old_spelling(raw: dict[str, Any]) -> dict[str, Any]:
    """transformers 4: `rope_theta`, `rope_scaling`, `num_experts`."""
    raw = dict(raw)
    rope = dict(raw.pop("rope_parameters"))
    theta = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    return {**raw, "rope_theta": theta, "rope_scaling": None if rope == {"type": "default"} else rope}


def new_spelling(raw: dict[str, Any]) -> dict[str, Any]:
    """transformers 5: `rope_parameters`, `num_local_experts`."""
    raw = dict(raw)
    if "num_experts" in raw:
        raw["num_local_experts"] = raw.pop("num_experts")
    return raw


YARN = {
    "rope_type": "yarn",
    "rope_theta": 5e6,
    "factor": 2.5,
    "original_max_position_embeddings": 32768,
    "attention_factor": 1.2,
}


@pytest.mark.parametrize("raw_model", [DENSE, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 1e6}, YARN], ids=["default", "yarn"])
def test_both_spellings_are_one_config(raw_model: dict[str, Any], rope: dict[str, Any]) -> None:
    raw = {**raw_model, "rope_parameters": rope}
    old, new = ModelConfig.from_dict(old_spelling(raw)), ModelConfig.from_dict(new_spelling(raw))
    assert old == new
    assert new.rope_theta == rope["rope_theta"]
    assert (new.rope_scaling is not None) == (rope is YARN)
    assert new.num_experts == raw_model.get("num_experts", 0)


def test_yarn_values() -> None:
    config = ModelConfig.from_dict({**DENSE, "rope_parameters": YARN})
    assert config.rope_scaling == RopeScaling(2.5, 32768, attention_factor=1.2)
    assert config.context_length == 81920


def test_published_spelling_of_quantization() -> None:
    raw = {"group_size": 32, "bits": 4, "lm_head": {"bits": 8, "group_size": 64}, "model.norm": False}
    config = ModelConfig.from_dict({**DENSE, "quantization": raw, "quantization_config": raw})
    assert config.quantization is not None
    assert config.quantization.for_layer("model.layers.0.mlp.up_proj") == config.quantization
    assert config.quantization.for_layer("lm_head") == Quantization(8, 64)
    assert config.quantization.for_layer("model.norm") is None
    assert Quantization.from_dict(config.quantization.to_dict()) == config.quantization


MISSING = object()
ROPE = {"rope_theta": 1e6}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "llama"}, "model_type 'llama'"),
    ({"model_type": MISSING}, "model_type None"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ({"attention_bias": True}, "attention_bias"),
    ({"use_sliding_window": True, "sliding_window": 4096}, "sliding_window"),
    ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "sliding_window"),
    ({"rope_parameters": {**ROPE, "rope_type": "llama3", "factor": 8.0}}, "rope type 'llama3'"),
    ({"rope_parameters": MISSING, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope type 'linear'"),
    ({"rope_parameters": {**ROPE, "rope_type": "yarn"}}, "factor is missing"),
    ({"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 0.5}}, "yarn factor is 0.5"),
    ({"rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 2, "mscale": 1.0}}, "'mscale'"),
    ({"rope_parameters": "yarn"}, "rope_parameters must be an object"),
    ({"rope_parameters": {"rope_theta": "1e6"}}, "rope_theta must be a number"),
    ({"hidden_size": MISSING}, "hidden_size is missing"),
    ({"hidden_size": "64"}, "hidden_size must be a positive whole number"),
    ({"num_hidden_layers": 3.0}, "num_hidden_layers must be a positive whole number"),
    ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive whole number"),
    ({"vocab_size": True}, "vocab_size must be a positive whole number"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps must be a number, zero or more"),
    ({"num_key_value_heads": 3}, "4 query heads cannot share 3"),
    ({"head_dim": 33}, "head_dim is 33"),
    ({"quantization": [4, 64]}, "quantization must be an object"),
    ({"quantization": {"bits": 7, "group_size": 64}}, "quantization bits is 7"),
    ({"quantization": {"bits": 4, "group_size": 48}}, "quantization group_size is 48"),
    ({"quantization": {"bits": 4, "group_size": 64, "mode": "nf4"}}, "quantization mode 'nf4'"),
    ({"quantization": {"bits": 8, "group_size": 32, "mode": "mxfp4"}}, "quantization bits is 8"),
    ({"quantization": {"bits": 4, "group_size": 64, "lm_head": {"bits": 9}}}, "quantization bits is 9"),
]
REFUSED += [
    ({"quantization_config": {"quant_method": method}}, repr(method)) for method in ("fp8", "awq", "gptq")
]
REFUSED_EXPERTS: list[tuple[dict[str, Any], str]] = [
    ({"num_experts": MISSING}, "num_local_experts is missing"),
    ({"num_experts_per_tok": 9}, "num_experts_per_tok 9 exceeds num_experts 8"),
    ({"mlp_only_layers": "1"}, "mlp_only_layers must be a list"),
    ({"norm_topk_prob": 1}, "norm_topk_prob must be true or false"),
    ({"moe_intermediate_size": None}, "moe_intermediate_size is missing"),
]


def _changed(raw: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**raw, **change}.items() if value is not MISSING}


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(_changed(DENSE, change))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "message"), REFUSED_EXPERTS, ids=[text for _, text in REFUSED_EXPERTS])
def test_mixtures_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(_changed(MOE, change))
    assert message in str(error.value)


def test_a_sliding_window_that_is_off_is_fine() -> None:
    published = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
    ModelConfig.from_dict({**DENSE, **published, "layer_types": ["full_attention"] * 3})


def test_which_layers_are_sparse() -> None:
    config = ModelConfig.from_dict({**MOE, "mlp_only_layers": [3], "decoder_sparse_step": 2})
    assert [config.is_sparse_layer(i) for i in range(6)] == [False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), ("{", "JSON"), ("[]", "JSON object"), (json.dumps({}), "model_type")],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_file(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
