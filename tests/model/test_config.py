"""config.json: both spellings, the family's sizes, and every refusal by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from parity.model_cases import DENSE, MOE

from mlx_qwen3.bench.shapes import SHAPES
from mlx_qwen3.errors import ConfigError
from mlx_qwen3.model.config import MODE_DEFAULTS, ModelConfig, Quantization, RopeScaling
from mlx_qwen3.model.qwen3 import Model
from mlx_qwen3.model.rope import yarn_wavelengths

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
    ({"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 2}, "sliding_window"),
    ({"use_sliding_window": True, "max_window_layers": 0}, "sliding_window"),
    ({"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers must be a whole number"),
    ({"use_sliding_window": "no"}, "use_sliding_window must be true or false"),
    ({"layer_types": "full_attention"}, "layer_types must be a list"),
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
    ({"quantization_config": {"quant_method": method}}, repr(method)) for method in ("bitsandbytes", "hqq")
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


class TestPositions:
    """As transformers 5 reads them, where a config holds more than one spelling."""

    @pytest.mark.parametrize("theirs", [{"rope_type": "default", "rope_theta": 1e6}, {**YARN, "factor": 4.0}])
    def test_rope_scaling_wins_over_rope_parameters(self, theirs: dict[str, Any]) -> None:
        scaling = {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16384}
        config = ModelConfig.from_dict({**DENSE, "rope_parameters": theirs, "rope_scaling": scaling})
        assert config.rope_scaling == RopeScaling(2.0, 16384)
        assert config.rope_theta == theirs["rope_theta"]

    def test_rope_scaling_of_the_default_type_switches_yarn_off(self) -> None:
        raw = {**DENSE, "rope_parameters": YARN, "rope_scaling": {"rope_type": "default", "rope_theta": 7e5}}
        config = ModelConfig.from_dict(raw)
        assert (config.rope_scaling, config.rope_theta) == (None, 7e5)

    @pytest.mark.parametrize("nothing", [None, {}])
    def test_an_empty_rope_scaling_does_not(self, nothing: dict[str, Any] | None) -> None:
        config = ModelConfig.from_dict({**DENSE, "rope_parameters": YARN, "rope_scaling": nothing})
        assert config.rope_scaling == RopeScaling(2.5, 32768, attention_factor=1.2)

    def test_theta_beside_rope_scaling_wins_over_that_of_rope_parameters(self) -> None:
        raw = {**DENSE, "rope_theta": 5e5, "rope_parameters": ROPE, "rope_scaling": {"type": "default"}}
        assert ModelConfig.from_dict(raw).rope_theta == 5e5

    @pytest.mark.parametrize("inner", [{}, {"original_max_position_embeddings": 100}])
    def test_the_original_length_at_the_top_level_wins(self, inner: dict[str, Any]) -> None:
        yarn = {"rope_type": "yarn", "factor": 4.0, **inner}
        raw = {**DENSE, "rope_parameters": yarn, "original_max_position_embeddings": 8192}
        config = ModelConfig.from_dict({**raw, "max_position_embeddings": 40960})
        assert config.rope_scaling == RopeScaling(4.0, 8192)
        assert config.context_length == 32768

    def test_truncate_is_read(self) -> None:
        config = ModelConfig.from_dict({**DENSE, "rope_parameters": {**YARN, "truncate": False}})
        assert config.rope_scaling is not None
        assert not config.rope_scaling.truncate

    def test_a_whole_rotary_part_is_harmless_and_half_of_one_is_refused(self) -> None:
        assert ModelConfig.from_dict({**DENSE, "rope_parameters": YARN, "partial_rotary_factor": 1.0})
        for raw in ({"partial_rotary_factor": 0.5}, {"rope_scaling": {**YARN, "partial_rotary_factor": 0.5}}):
            with pytest.raises(ConfigError, match="partial_rotary_factor"):
                ModelConfig.from_dict({**DENSE, "rope_parameters": YARN, **raw})

    def test_positions_of_each_layer_type_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="differ between layers"):
            ModelConfig.from_dict({**DENSE, "rope_parameters": {"full_attention": YARN}})


class TestQuantizationDefaults:
    """A missing or null value is MLX's default of the mode."""

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ({"bits": 8}, Quantization(8, 64)),
            ({"group_size": 32}, Quantization(4, 32)),
            ({"bits": 6, "group_size": None}, Quantization(6, 64)),
            ({"bits": None, "group_size": 128, "mode": None}, Quantization(4, 128)),
            ({"mode": "mxfp8"}, Quantization(8, 32, "mxfp8")),
            ({"mode": "nvfp4", "bits": 4}, Quantization(4, 16, "nvfp4")),
            ({"mode": "mxfp4", "group_size": None}, Quantization(4, 32, "mxfp4")),
        ],
    )
    def test_of_the_model_and_of_a_layer(self, raw: dict[str, Any], expected: Quantization) -> None:
        assert ModelConfig.from_dict({**DENSE, "quantization": raw}).quantization == expected
        outer = {"bits": 3, "group_size": 128, "lm_head": raw}
        config = ModelConfig.from_dict({**DENSE, "quantization": outer})
        assert config.quantization is not None
        assert config.quantization.for_layer("lm_head") == expected

    def test_they_are_those_of_mlx(self) -> None:
        weights = mx.zeros((2, 256))
        for mode, (bits, group_size) in MODE_DEFAULTS.items():
            default = mx.quantize(weights, mode=mode)
            named = mx.quantize(weights, group_size=group_size, bits=bits, mode=mode)
            assert [part.shape for part in default] == [part.shape for part in named]


def test_a_mixture_without_head_dim_divides_the_hidden_size() -> None:
    raw = {**MOE, "hidden_size": 96, "num_attention_heads": 4, "head_dim": MISSING}
    assert ModelConfig.from_dict(_changed(raw, {})).head_dim == 24
    assert ModelConfig.from_dict({**raw, "head_dim": None}).head_dim == 24
    assert ModelConfig.from_dict(_changed(DENSE, {"head_dim": MISSING})).head_dim == 128


@pytest.mark.parametrize(
    "window",
    [
        {"max_window_layers": 28},
        {"max_window_layers": 3, "sliding_window": 16},
        {"max_window_layers": 0, "sliding_window": None},
        {"max_window_layers": 0, "layer_types": ["full_attention"] * 3},
    ],
)
def test_a_sliding_window_that_touches_no_layer_is_fine(window: dict[str, Any]) -> None:
    raw = {**DENSE, "num_hidden_layers": 3, "use_sliding_window": True, **window}
    assert ModelConfig.from_dict(raw).num_hidden_layers == 3


def test_a_sliding_window_of_a_mixture_touches_all_layers() -> None:
    with pytest.raises(ConfigError, match="sliding_window"):
        ModelConfig.from_dict({**MOE, "use_sliding_window": True, "max_window_layers": 99})
    assert ModelConfig.from_dict({**MOE, "use_sliding_window": True, "sliding_window": None})


WRONG = [math.nan, math.inf, -math.inf, -1, 10**400, "4", [4], {"a": 4}, True, "x" * 10**6, [[[[1]]]] * 1000]
FIELDS = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"]
FIELDS += ["head_dim", "intermediate_size", "max_position_embeddings", "rms_norm_eps", "rope_theta"]
FIELDS += ["num_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_wrong_kinds_and_impossible_numbers_are_refused_in_a_short_line(field: str, value: object) -> None:
    raw = {key: part for key, part in MOE.items() if key != "rope_parameters"}
    with pytest.raises(ConfigError, match=field) as error:
        ModelConfig.from_dict({**raw, field: value})
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


@pytest.mark.parametrize("field", ["quantization", "rope_scaling", "rope_parameters", "layer_types"])
@pytest.mark.parametrize("value", [1, "x" * 10**6, True, math.nan, [[1]], "a\x1b[31m\n"], ids=range(6))
def test_wrong_kinds_of_objects_are_refused_in_a_short_line(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict({**DENSE, field: value})
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["mode", "bits", "group_size"])
@pytest.mark.parametrize("value", [[], {"a": []}, "four", True, 4.5, math.nan, math.inf, -4])
def test_wrong_kinds_in_a_quantization(name: str, value: object) -> None:
    with pytest.raises(ConfigError):
        ModelConfig.from_dict({**DENSE, "quantization": {name: value}})


@pytest.mark.parametrize("name", ["factor", "beta_fast", "beta_slow", "attention_factor", "rope_theta"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "2", [], True, 1e300], ids=range(7))
def test_wrong_kinds_in_yarn(name: str, value: object) -> None:
    raw = {**DENSE, "rope_parameters": {**YARN, name: value}}
    if value == 1e300 and name in ("attention_factor", "rope_theta"):
        assert all(math.isfinite(length) for length in _wavelengths(ModelConfig.from_dict(raw)))
        return
    with pytest.raises(ConfigError):
        ModelConfig.from_dict(raw)


def _wavelengths(config: ModelConfig) -> list[float]:
    assert config.rope_scaling is not None
    return yarn_wavelengths(config.head_dim, config.rope_theta, config.rope_scaling)


@pytest.mark.parametrize(
    "field", ["num_hidden_layers", "num_experts", "vocab_size", "hidden_size", "head_dim"]
)
def test_sizes_that_no_model_has_are_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is .*but may be at most"):
        ModelConfig.from_dict({**MOE, field: 2**31})


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("factor", [1.5, 4.0])
def test_wavelengths_follow_the_formula_of_transformers(truncate: bool, factor: float) -> None:
    yarn = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 32768}
    raw = {**DENSE, "rope_parameters": {**yarn, "rope_theta": 1e6, "truncate": truncate}, "head_dim": 128}
    pairs = np.arange(64)
    frequencies = 1e6 ** (-2 * pairs / 128)
    low, high = (128 * math.log(32768 / (turns * 2 * math.pi)) / (2 * math.log(1e6)) for turns in (32, 1))
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    ramp = np.clip((pairs - low) / (high - low), 0, 1)
    expected = frequencies / factor * ramp + frequencies * (1 - ramp)
    np.testing.assert_allclose(1 / np.array(_wavelengths(ModelConfig.from_dict(raw))), expected, rtol=1e-12)
