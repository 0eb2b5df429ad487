"""What a model, its cache and its work take of memory, told before anything is loaded.

Bytes follow from the shapes; how much a prompt's chunk takes at once was fitted to measurements
(docs/memory.md has the table, `benchmarks/estimate.py` makes it).
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.model.attention_kernels import TILE_KEYS, TILE_QUERIES, TILE_SCORES
from mlx_qwen3.model.config import ModelConfig

# Tokens of a prompt that are fed at once, at most: as fast as a GPU is, and as slow as a CPU is.
CPU_CHUNK, GPU_CHUNK = 256, 2048
# Arrays of a chunk that are alive at once in attention (queries, keys, values, before and after
# they are rotated, and what is added up) and in the feed-forward part (gate, up, their product).
ATTENTION_ARRAYS, MLP_ARRAYS, HIDDEN_ARRAYS = 4.5, 3.0, 3.0
# Tiles of fp32 scores alive at once on the CPU: scores, weights, what hides the future.
SCORE_TILES = 3.0
# Tiles of unpacked rows alive at once: keys, values, and one in the making.
UNPACKED_TILES = 3
# fp32 rows of logits that a sampler works on.
LOGIT_ROWS = 6


@dataclass(frozen=True)
class Need:
    """Bytes that running a model takes."""

    weights: int
    cache: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.workspace


def cache_nbytes(config: ModelConfig, cache_config: CacheConfig, tokens: int, itemsize: int) -> int:
    """Bytes of a whole model's cache of `tokens`. itemsize: bytes of a number of the model's dtype."""
    heads = config.num_hidden_layers * config.num_key_value_heads
    rows = cache_config.capacity(tokens)
    return 2 * heads * rows * cache_config.row_nbytes(config.head_dim, itemsize)


def needed(
    config: ModelConfig,
    weights: int,
    tokens: int,
    cache_config: CacheConfig | None = None,
    itemsize: int = 2,
    chunk: int | None = None,
) -> Need:
    """What a conversation of `tokens` takes on MLX's default device.

    weights: bytes of weights in memory. itemsize: bytes of the numbers computed with. chunk: tokens
    of a prompt fed at once; None is what `prefill` comes to.
    """
    cache_config = cache_config or CacheConfig()
    cache = cache_nbytes(config, cache_config, tokens, itemsize)
    chunk = min(chunk or (CPU_CHUNK if is_cpu() else GPU_CHUNK), tokens)
    return Need(weights, cache, workspace(config, tokens, cache, cache_config, itemsize, chunk))


def workspace(
    config: ModelConfig, tokens: int, cache: int, cache_config: CacheConfig, itemsize: int, chunk: int
) -> int:
    """Bytes taken beyond weights and cache while a chunk of a prompt is fed, or a token decoded."""
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    attention = ATTENTION_ARRAYS * heads * config.head_dim
    hidden = HIDDEN_ARRAYS * config.hidden_size
    width = max(config.intermediate_size, config.num_experts_per_tok * config.moe_intermediate_size)
    mlp = MLP_ARRAYS * width
    of_chunk = chunk * itemsize * (hidden + max(attention, mlp) if is_cpu() else hidden + attention + mlp)
    # While a full cache grows, a layer's old buffers are there beside the new ones.
    growth = cache // config.num_hidden_layers if cache_config.max_size is None else 0
    logits = 4 * LOGIT_ROWS * config.vocab_size
    return int(of_chunk + max(_scores(config, tokens, cache_config, itemsize, chunk), growth, logits))


def _scores(config: ModelConfig, tokens: int, cache_config: CacheConfig, itemsize: int, chunk: int) -> float:
    """What attention takes for scores on the CPU, and for rows unpacked on a GPU."""
    if not is_cpu():
        return 0 if cache_config.bits is None else 4 * tokens * config.head_dim * itemsize
    across = config.num_attention_heads * min(chunk, TILE_QUERIES)
    rows = min(tokens, max(TILE_KEYS, TILE_SCORES // across))
    scores = SCORE_TILES * 4 * across * rows
    unpacked = UNPACKED_TILES * 4 * rows * config.num_key_value_heads * config.head_dim
    return scores + (0 if cache_config.bits is None else unpacked)
