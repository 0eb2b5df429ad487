"""Parses config.json into frozen dataclasses, and refuses by name what this package cannot run.

Fields have the names of the published files. Positions may be spelled `rope_theta` + `rope_scaling` or, as
in transformers 5, `rope_parameters`; the number of experts `num_experts` or `num_local_experts`. An
optional field that is missing takes transformers' default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.files import read_json_object

MODEL_TYPES = ("qwen3", "qwen3_moe")
QUANTIZATION_MODES = {
    # mode: (bits, group sizes) that MLX supports
    "affine": ((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}


@dataclass(frozen=True)
class RopeScaling:
    """YaRN (https://arxiv.org/abs/2309.00071), for contexts longer than those of training.

    Attributes:
        factor: The new context length / `original_max_position_embeddings`.
        attention_factor: Multiplies q and k; None is the factor of the paper (`yarn_attention_factor`).
        beta_fast: Frequencies with more turns than this in the original context are kept.
        beta_slow: Frequencies with fewer turns than this are divided by `factor`.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    rope_type: str = "yarn"

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], max_position_embeddings: int) -> RopeScaling | None:
        """Parse `rope_scaling` or `rope_parameters`; None if positions are not scaled.

        Raises ConfigError for rope types other than `default` and `yarn`, and for fields of YaRN that no
        Qwen3 model uses.
        """
        rope_type = raw.get("rope_type", raw.get("type", "default"))
        if rope_type == "default":
            return None
        if rope_type != "yarn":
            raise ConfigError(
                f"config.json: rope type {rope_type!r} is not supported; Qwen3 uses default or yarn"
            )
        known = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
        known |= {"attention_factor", "beta_fast", "beta_slow"}
        if unknown := sorted(key for key in raw if key not in known and raw[key] is not None):
            raise ConfigError(f"config.json: rope scaling has {unknown[0]!r}, which no Qwen3 model uses")
        factor = _number(raw, "factor")
        if factor < 1:
            raise ConfigError(f"config.json: yarn factor is {factor:g}, but must be at least 1")
        return cls(
            factor=factor,
            original_max_position_embeddings=_integer(
                raw, "original_max_position_embeddings", max_position_embeddings
            ),
            attention_factor=_number(raw, "attention_factor", 0.0) or None,
            beta_fast=_number(raw, "beta_fast", 32.0),
            beta_slow=_number(raw, "beta_slow", 1.0),
        )


@dataclass(frozen=True)
class Quantization:
    """How MLX stores quantized weights: `bits` per value, one scale per `group_size` values.

    overrides: for layers that differ, by module path; None is a layer that is not quantized.
    """

    bits: int = 4
    group_size: int = 64
    mode: str = "affine"
    overrides: Mapping[str, Quantization | None] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Quantization:
        """Parse the `quantization` entry of an MLX config.json, with its overrides for layers."""
        if method := raw.get("quant_method"):
            raise ConfigError(
                f"config.json: the weights are quantized with {method!r}, which MLX cannot run; "
                "use the unquantized repository, or one converted to MLX"
            )
        mode = raw.get("mode", "affine")
        if mode not in QUANTIZATION_MODES:
            modes = ", ".join(QUANTIZATION_MODES)
            raise ConfigError(f"config.json: quantization mode {mode!r} is unknown; known: {modes}")
        bits, group_sizes = QUANTIZATION_MODES[mode]
        return cls(
            bits=_one_of(raw, "bits", bits, bits[0]),
            group_size=_one_of(raw, "group_size", group_sizes, group_sizes[0]),
            mode=mode,
            overrides={
                key: None if value is False else cls.from_dict(value)
                for key, value in raw.items()
                if isinstance(value, Mapping) or value is False
            },
        )

    def for_layer(self, path: str) -> Quantization | None:
        """The quantization of the module at `path`; None if it is not quantized."""
        return self.overrides.get(path, self)

    def mlx_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `mx.quantize` and its relatives."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def to_dict(self) -> dict[str, Any]:
        """The `quantization` entry of config.json."""
        layers = {path: layer.mlx_arguments() if layer else False for path, layer in self.overrides.items()}
        return {**self.mlx_arguments(), **layers}


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one Qwen3 model, dense or mixture of experts. Sizes count elements."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32768
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    # Mixture of experts; num_experts is 0 for a dense model.
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    quantization: Quantization | None = None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Parse the content of config.json.

        Raises ConfigError, which names the field that is missing, malformed or not supported.
        """
        model_type = raw.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ConfigError(
                f"config.json: model_type {model_type!r} is not a Qwen3 text model ({', '.join(MODEL_TYPES)})"
            )
        _refuse_unsupported(raw)
        positions = _integer(raw, "max_position_embeddings", 32768)
        rope = _mapping(raw, "rope_parameters") or _mapping(raw, "rope_scaling") or {}
        quantization = _mapping(raw, "quantization") or _mapping(raw, "quantization_config")
        heads = _integer(raw, "num_attention_heads")
        config = cls(
            model_type=model_type,
            hidden_size=_integer(raw, "hidden_size"),
            num_hidden_layers=_integer(raw, "num_hidden_layers"),
            intermediate_size=_integer(raw, "intermediate_size"),
            num_attention_heads=heads,
            num_key_value_heads=_integer(raw, "num_key_value_heads", heads),
            vocab_size=_integer(raw, "vocab_size"),
            head_dim=_integer(raw, "head_dim", 128),
            rms_norm_eps=_number(raw, "rms_norm_eps", 1e-6),
            max_position_embeddings=positions,
            rope_theta=_number(rope, "rope_theta", _number(raw, "rope_theta", 10000.0)),
            rope_scaling=RopeScaling.from_dict(rope, positions),
            tie_word_embeddings=_boolean(raw, "tie_word_embeddings", False),
            quantization=Quantization.from_dict(quantization) if quantization else None,
            **(_experts(raw) if model_type == "qwen3_moe" else {}),
        )
        config._check()
        return config

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """Parse the file config.json. Raises ConfigError, which names the file and the field."""
        raw = read_json(path)
        try:
            return cls.from_dict(raw)
        except ConfigError as error:
            raise ConfigError(str(error).replace("config.json", str(path), 1)) from None

    def is_sparse_layer(self, index: int) -> bool:
        """Whether layer `index` is a mixture of experts. The others are dense."""
        if self.num_experts == 0 or index in self.mlp_only_layers:
            return False
        return (index + 1) % self.decoder_sparse_step == 0

    @property
    def context_length(self) -> int:
        """The most tokens of prompt and answer together."""
        if self.rope_scaling is None:
            return self.max_position_embeddings
        return int(self.rope_scaling.factor * self.rope_scaling.original_max_position_embeddings)

    @property
    def num_parameters(self) -> int:
        """Weights of the whole model. A tied output head counts once."""
        return self._count(experts=self.num_experts)

    @property
    def num_active_parameters(self) -> int:
        """Weights that compute one token."""
        return self._count(experts=self.num_experts_per_tok)

    def _count(self, experts: int) -> int:
        hidden, head = self.hidden_size, self.head_dim
        attention = 2 * hidden * head * (self.num_attention_heads + self.num_key_value_heads) + 2 * head
        dense = 3 * hidden * self.intermediate_size
        sparse = hidden * self.num_experts + experts * 3 * hidden * self.moe_intermediate_size
        sparse_layers = sum(self.is_sparse_layer(i) for i in range(self.num_hidden_layers))
        layers = self.num_hidden_layers * (attention + 2 * hidden)
        layers += sparse_layers * sparse + (self.num_hidden_layers - sparse_layers) * dense
        embeddings = self.vocab_size * hidden * (1 if self.tie_word_embeddings else 2)
        return layers + embeddings + hidden

    def _check(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"config.json: {self.num_attention_heads} query heads cannot share "
                f"{self.num_key_value_heads} key/value heads evenly"
            )
        if self.head_dim % 2:
            raise ConfigError(f"config.json: head_dim is {self.head_dim}, but RoPE needs an even number")
        if self.num_experts_per_tok > self.num_experts:
            raise ConfigError(
                f"config.json: num_experts_per_tok {self.num_experts_per_tok} exceeds "
                f"num_experts {self.num_experts}"
            )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`. Raises ConfigError, which names the file and what is wrong."""
    if not path.exists():
        raise ConfigError(f"{path} is missing; is this the folder of a checkpoint?")
    return read_json_object(path, ConfigError, "download it again")


def _experts(raw: Mapping[str, Any]) -> dict[str, Any]:
    count = _integer(raw, "num_experts") if "num_experts" in raw else _integer(raw, "num_local_experts")
    dense_layers = raw.get("mlp_only_layers") or []
    if not isinstance(dense_layers, list) or not all(isinstance(i, int) for i in dense_layers):
        raise ConfigError("config.json: mlp_only_layers must be a list of layer numbers")
    return {
        "num_experts": count,
        "num_experts_per_tok": _integer(raw, "num_experts_per_tok"),
        "moe_intermediate_size": _integer(raw, "moe_intermediate_size"),
        "norm_topk_prob": _boolean(raw, "norm_topk_prob", False),
        "decoder_sparse_step": _integer(raw, "decoder_sparse_step", 1),
        "mlp_only_layers": tuple(dense_layers),
    }


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    if (activation := raw.get("hidden_act", "silu")) != "silu":
        raise ConfigError(f"config.json: hidden_act {activation!r} is not supported; Qwen3 uses silu")
    if raw.get("attention_bias"):
        raise ConfigError(
            "config.json: attention_bias is true, which is not supported; Qwen3 has no attention bias"
        )
    layer_types = raw.get("layer_types") or []
    if raw.get("use_sliding_window") or any(layer_type != "full_attention" for layer_type in layer_types):
        raise ConfigError(
            "config.json: sliding_window attention (use_sliding_window or layer_types) is not supported; "
            "Qwen3 uses full attention"
        )


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"config.json: {key} must be an object, not {value!r}")
    return value


def _integer(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = default if raw.get(key) is None else raw[key]
    if value is None:
        raise ConfigError(f"config.json: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"config.json: {key} must be a positive whole number, not {value!r}")
    return value


def _number(raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = default if raw.get(key) is None else raw[key]
    if value is None:
        raise ConfigError(f"config.json: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"config.json: {key} must be a number, zero or more, not {value!r}")
    return float(value)


def _boolean(raw: Mapping[str, Any], key: str, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {key} must be true or false, not {value!r}")
    return value


def _one_of(raw: Mapping[str, Any], key: str, allowed: tuple[int, ...], default: int) -> int:
    value = raw.get(key, default)
    if value not in allowed:
        raise ConfigError(
            f"config.json: quantization {key} is {value!r}, but MLX supports {', '.join(map(str, allowed))}"
        )
    return int(value)
