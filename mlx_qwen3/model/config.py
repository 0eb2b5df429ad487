"""Parses config.json into frozen dataclasses, and refuses by name what this package cannot run.

Fields have the names of the published files. Positions may be spelled `rope_theta` + `rope_scaling` or, as
in transformers 5, `rope_parameters`; the number of experts `num_experts` or `num_local_experts`. An
optional field that is missing takes transformers' default.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_qwen3.errors import ConfigError
from mlx_qwen3.files import read_json_object
from mlx_qwen3.model.config_fields import (
    MAX_EXPERTS,
    MAX_HEAD_DIM,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_VOCABULARY,
    boolean,
    integer,
    layer_numbers,
    mapping,
    number,
    positive,
    refuse_unsupported,
    shown,
    with_default,
)
from mlx_qwen3.model.quantization import MODE_DEFAULTS as MODE_DEFAULTS
from mlx_qwen3.model.quantization import QUANTIZATION_MODES as QUANTIZATION_MODES
from mlx_qwen3.model.quantization import Packing as Packing
from mlx_qwen3.model.quantization import Quantization as Quantization

MODEL_TYPES = ("qwen3", "qwen3_moe")
MAX_JSON_BYTES = 2**25  # the index of the largest published model has 4 MB
MAX_JSON_DEPTH = 32


@dataclass(frozen=True)
class RopeScaling:
    """YaRN (https://arxiv.org/abs/2309.00071), for contexts longer than those of training.

    Attributes:
        factor: The new context length / `original_max_position_embeddings`.
        attention_factor: Multiplies q and k; None is the factor of the paper (`yarn_attention_factor`).
        beta_fast: Frequencies with more turns than this in the original context are kept.
        beta_slow: Frequencies with fewer turns than this are divided by `factor`.
        truncate: Whether the ramp between the two begins and ends at whole pairs.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    rope_type: str = "yarn"
    truncate: bool = True

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], original_positions: int) -> RopeScaling | None:
        """Parse `rope_scaling` or `rope_parameters`; None if positions are not scaled.

        original_positions: the context length of training, where `raw` does not say it.
        Raises ConfigError for rope types other than `default` and `yarn`, and for fields of YaRN that no
        Qwen3 model uses.
        """
        rope_type = with_default(raw, "rope_type", with_default(raw, "type", "default"))
        if any(isinstance(value, Mapping) for value in raw.values()):
            raise ConfigError("config.json: positions that differ between layers are not supported")
        if rope_type == "default":
            return None
        if rope_type != "yarn":
            raise ConfigError(
                f"config.json: rope type {shown(rope_type)} is not supported; Qwen3 uses default or yarn"
            )
        known = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
        known |= {"attention_factor", "beta_fast", "beta_slow", "truncate"}
        harmless = {"partial_rotary_factor": 1}  # the whole of each head is rotated
        if unknown := sorted(
            key
            for key, value in raw.items()
            if key not in known and value is not None and harmless.get(key) != value
        ):
            raise ConfigError(f"config.json: rope scaling has {shown(unknown[0])}, which no Qwen3 model uses")
        factor = number(raw, "factor")
        if factor < 1:
            raise ConfigError(f"config.json: yarn factor is {factor:g}, but must be at least 1")
        original = integer(raw, "original_max_position_embeddings", original_positions, most=MAX_POSITIONS)
        if factor * original > MAX_POSITIONS:
            raise ConfigError(f"config.json: yarn factor is {factor:g}, which is too large")
        return cls(
            factor=factor,
            original_max_position_embeddings=original,
            attention_factor=number(raw, "attention_factor", 0.0) or None,
            beta_fast=_turns(raw, "beta_fast", 32.0),
            beta_slow=_turns(raw, "beta_slow", 1.0),
            truncate=boolean(raw, "truncate", True),
        )


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
    has_output_head: bool = True  # False for an embedding model that is published without one
    # Mixture of experts; num_experts is 0 for a dense model.
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    quantization: Quantization | None = None
    packing: Packing | None = None  # by another program; MLX runs some of these, and conversion reads all

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Parse the content of config.json.

        Raises ConfigError, which names the field that is missing, malformed or not supported.
        """
        model_type = raw.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ConfigError(
                f"config.json: model_type {shown(model_type)} is not a Qwen3 text model "
                f"({', '.join(MODEL_TYPES)})"
            )
        refuse_unsupported(raw)
        is_moe = model_type == "qwen3_moe"
        positions = integer(raw, "max_position_embeddings", 32768, most=MAX_POSITIONS)
        quantization = mapping(raw, "quantization") or mapping(raw, "quantization_config")
        is_packed = quantization.get("quant_method") is not None
        hidden = integer(raw, "hidden_size")
        heads = integer(raw, "num_attention_heads", most=MAX_HEADS)
        rope_theta, rope_scaling = _positions(raw, positions)
        config = cls(
            model_type=model_type,
            hidden_size=hidden,
            num_hidden_layers=integer(raw, "num_hidden_layers", most=MAX_LAYERS),
            intermediate_size=integer(raw, "intermediate_size"),
            num_attention_heads=heads,
            num_key_value_heads=integer(raw, "num_key_value_heads", heads, most=MAX_HEADS),
            vocab_size=integer(raw, "vocab_size", most=MAX_VOCABULARY),
            # transformers has a default for dense models only.
            head_dim=integer(raw, "head_dim", hidden // heads if is_moe else 128, most=MAX_HEAD_DIM),
            rms_norm_eps=positive(raw, "rms_norm_eps", 1e-6),
            max_position_embeddings=positions,
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            tie_word_embeddings=boolean(raw, "tie_word_embeddings", False),
            quantization=None if is_packed or not quantization else Quantization.from_dict(quantization),
            packing=Packing.from_dict(quantization) if is_packed else None,
            **(_experts(raw) if is_moe else {}),
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
    def has_own_head(self) -> bool:
        """Whether there is an output head beside the embedding."""
        return self.has_output_head and not self.tie_word_embeddings

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
        embeddings = self.vocab_size * hidden * (2 if self.has_own_head else 1)
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
    content = read_json_object(path, ConfigError, "download it again", MAX_JSON_BYTES)
    level: list[Any] = [content]
    for _ in range(MAX_JSON_DEPTH):
        if any(isinstance(value, float) and not math.isfinite(value) for value in level):
            raise ConfigError(f"{path} holds NaN or infinity, which are no numbers of JSON")
        level = [part for value in level for part in _parts(value)]
        if not level:
            return content
    raise ConfigError(f"{path} is nested more than {MAX_JSON_DEPTH} deep; no file of a checkpoint is")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _positions(raw: Mapping[str, Any], positions: int) -> tuple[float, RopeScaling | None]:
    """Theta of RoPE, and its scaling.

    A config may hold both spellings, where YaRN was added to one of transformers 5. As in transformers,
    `rope_scaling` wins then, and `original_max_position_embeddings` at the top level wins over the one
    inside. The theta of `rope_parameters` stays unless another is given.
    """
    parameters = mapping(raw, "rope_parameters")
    rope = mapping(raw, "rope_scaling") or parameters
    if with_default(raw, "original_max_position_embeddings", None) is not None:
        original = integer(raw, "original_max_position_embeddings", most=MAX_POSITIONS)
        rope = {**rope, "original_max_position_embeddings": original}
    if (part := with_default(raw, "partial_rotary_factor", None)) is not None:
        rope = {"partial_rotary_factor": part, **rope}
    theta = number(rope, "rope_theta", number(raw, "rope_theta", number(parameters, "rope_theta", 10000.0)))
    if theta <= 1:
        raise ConfigError(f"config.json: rope_theta is {theta:g}, but must be more than 1")
    return theta, RopeScaling.from_dict(rope, positions)


def _turns(raw: Mapping[str, Any], key: str, default: float) -> float:
    """A limit of YaRN's ramp, in turns; 0 is the default, as in transformers."""
    turns = number(raw, key, default) or default
    if not 1e-6 <= turns <= 1e6:
        raise ConfigError(f"config.json: {key} is {turns:g}, but must be from 1e-06 to 1e+06")
    return turns


def _experts(raw: Mapping[str, Any]) -> dict[str, Any]:
    key = "num_local_experts" if raw.get("num_experts") is None else "num_experts"
    return {
        "num_experts": integer(raw, key, most=MAX_EXPERTS),
        "num_experts_per_tok": integer(raw, "num_experts_per_tok", most=MAX_EXPERTS),
        "moe_intermediate_size": integer(raw, "moe_intermediate_size"),
        "norm_topk_prob": boolean(raw, "norm_topk_prob", False),
        "decoder_sparse_step": integer(raw, "decoder_sparse_step", 1),
        "mlp_only_layers": layer_numbers(raw, "mlp_only_layers"),
    }
