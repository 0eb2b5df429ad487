"""The plainest decoding there is, one token at a time: what the scheduler is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Constraint, Sampler


def decode_plainly(
    model: Any,
    prompt: Sequence[int],
    params: SamplingParams,
    count: int,
    vocab_size: int,
    constraint: Constraint | None = None,
    forced: dict[int, Sequence[int]] | None = None,
    eos_token_ids: Sequence[int] = (),
    **cache_options: Any,
) -> list[int]:
    """`count` tokens after `prompt`. forced: ids to feed after so many tokens, in place of the next one."""
    prompt_cache = PromptCache(model, CacheConfig(**cache_options))
    ids = prompt_cache.begin(prompt)  # with a window not all of them
    cache = prompt_cache.layers
    sampler = Sampler(params, vocab_size, constraint, eos_token_ids)
    tokens: list[int] = []
    while len(tokens) < count:
        logits = model(mx.array([ids]), cache)[0, -1]
        token = int(sampler(logits).item())  # type: ignore[arg-type]  # item() is typed complex too
        sampler.observe(token)
        tokens.append(token)
        ids = [token, *(forced or {}).get(len(tokens), ())]
    return tokens
