"""The Qwen3 family: its members' published 4-bit checkpoints, and their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mlx_qwen3.model.config import ModelConfig, Quantization


@dataclass(frozen=True)
class FamilyMember:
    """An official Qwen3 checkpoint in MLX's 4-bit form. `num_bytes` counts its weights.

    experts: how many there are, how many a token goes through, and the width of one; None if dense.
    """

    name: str
    repository: str
    num_bytes: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    tie_word_embeddings: bool = False
    experts: tuple[int, int, int] | None = None

    @cached_property
    def config(self) -> ModelConfig:
        """Its config.json, as published."""
        count, active, width = self.experts or (0, 0, 0)
        return ModelConfig(
            model_type="qwen3_moe" if self.experts else "qwen3",
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            intermediate_size=self.intermediate_size,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            vocab_size=151936,
            max_position_embeddings=40960,
            rope_theta=1e6,
            tie_word_embeddings=self.tie_word_embeddings,
            num_experts=count,
            num_experts_per_tok=active,
            moe_intermediate_size=width,
            norm_topk_prob=True,
            quantization=Quantization(bits=4, group_size=64),
        )

    @property
    def num_parameters(self) -> int:
        return self.config.num_parameters

    @property
    def num_active_parameters(self) -> int:
        return self.config.num_active_parameters


# num_bytes of 1.7b, 8b and 14b is as published (groups of 128, 128 and 64); the others' is what 4 bits in
# groups of 64 come to, and at most 6 % too much.
FAMILY = {
    member.name: member
    for member in (
        FamilyMember("0.6b", "Qwen/Qwen3-0.6B-MLX-4bit", 335_372_288, 1024, 28, 16, 8, 3072, True),
        FamilyMember("1.7b", "Qwen/Qwen3-1.7B-MLX-4bit", 914_237_440, 2048, 28, 16, 8, 6144, True),
        FamilyMember("4b", "Qwen/Qwen3-4B-MLX-4bit", 2_262_920_192, 2560, 36, 32, 8, 9728, True),
        FamilyMember("8b", "Qwen/Qwen3-8B-MLX-4bit", 4_351_780_864, 4096, 36, 32, 8, 12288),
        FamilyMember("14b", "Qwen/Qwen3-14B-MLX-4bit", 8_307_783_680, 5120, 40, 40, 8, 17408),
        FamilyMember("32b", "Qwen/Qwen3-32B-MLX-4bit", 18_429_667_328, 5120, 64, 64, 8, 25600),
        FamilyMember(
            "30b-a3b",
            "Qwen/Qwen3-30B-A3B-MLX-4bit",
            17_180_913_664,
            *(2048, 48, 32, 4, 6144),
            experts=(128, 8, 768),
        ),
        FamilyMember(
            "235b-a22b",
            "Qwen/Qwen3-235B-A22B-MLX-4bit",
            132_265_958_400,
            *(4096, 94, 64, 4, 12288),
            experts=(128, 8, 1536),
        ),
    )
}

SHORT_NAMES = tuple(FAMILY)
