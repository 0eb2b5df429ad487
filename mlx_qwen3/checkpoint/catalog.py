"""The Qwen3 family: shapes of its models, and the official 4-bit checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlx_qwen3.model.config import ModelConfig


@dataclass(frozen=True)
class Shape:
    """The sizes in which Qwen3 models differ.

    Attributes:
        experts: Of a mixture: the number of experts, how many a token is routed to, and the intermediate
            size of each. None for a dense model.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    tie_word_embeddings: bool = False
    experts: tuple[int, int, int] | None = None

    def config_json(self) -> dict[str, Any]:
        """config.json of an unquantized checkpoint, as Qwen publishes it."""
        config: dict[str, Any] = {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": 128,
            "intermediate_size": self.intermediate_size,
            "vocab_size": 151936,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000,
            "rope_scaling": None,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": False,
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
        }
        if self.experts is not None:
            count, active, size = self.experts
            config |= {
                "architectures": ["Qwen3MoeForCausalLM"],
                "model_type": "qwen3_moe",
                "num_experts": count,
                "num_experts_per_tok": active,
                "moe_intermediate_size": size,
                "norm_topk_prob": True,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            }
        return config


@dataclass(frozen=True)
class FamilyMember:
    """An official Qwen3 checkpoint in MLX's 4-bit format. `num_bytes` is the size of its weights."""

    name: str
    repository: str
    num_bytes: int
    shape: Shape

    @cached_property
    def config(self) -> ModelConfig:
        """Its config at 4 bits in groups of 64. (1.7b and 8b are published in groups of 128.)"""
        return ModelConfig.from_dict(
            {**self.shape.config_json(), "quantization": {"bits": 4, "group_size": 64}}
        )

    @property
    def num_parameters(self) -> int:
        return self.config.num_parameters

    @property
    def num_active_parameters(self) -> int:
        """Parameters that take part in computing one token."""
        return self.config.num_active_parameters


REPOSITORY = "Qwen/Qwen3-{}-MLX-4bit"

# num_bytes of 1.7b, 8b and 14b is of the published files (groups of 128, 128 and 64). For the others it is
# computed for 4 bits in groups of 64, which is at most 6 % too much.
FAMILY = {
    member.name: member
    for member in (
        FamilyMember("0.6b", REPOSITORY.format("0.6B"), 335_372_288, Shape(1024, 28, 16, 8, 3072, True)),
        FamilyMember("1.7b", REPOSITORY.format("1.7B"), 914_237_440, Shape(2048, 28, 16, 8, 6144, True)),
        FamilyMember("4b", REPOSITORY.format("4B"), 2_262_920_192, Shape(2560, 36, 32, 8, 9728, True)),
        FamilyMember("8b", REPOSITORY.format("8B"), 4_351_780_864, Shape(4096, 36, 32, 8, 12288)),
        FamilyMember("14b", REPOSITORY.format("14B"), 8_307_783_680, Shape(5120, 40, 40, 8, 17408)),
        FamilyMember("32b", REPOSITORY.format("32B"), 18_429_667_328, Shape(5120, 64, 64, 8, 25600)),
        FamilyMember(
            "30b-a3b",
            REPOSITORY.format("30B-A3B"),
            17_180_913_664,
            Shape(2048, 48, 32, 4, 6144, experts=(128, 8, 768)),
        ),
        FamilyMember(
            "235b-a22b",
            REPOSITORY.format("235B-A22B"),
            132_265_958_400,
            Shape(4096, 94, 64, 4, 12288, experts=(128, 8, 1536)),
        ),
    )
}

SHORT_NAMES = tuple(FAMILY)
