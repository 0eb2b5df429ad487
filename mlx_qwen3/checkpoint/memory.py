"""Estimates the memory that a model, its KV cache and a prefill chunk take, before anything is loaded.

Weights and KV cache follow from their shapes. The factors for the working memory were fitted to
measurements (table in docs/memory.md, made by `benchmarks/estimate.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.generation.prefill import FIRST_CHUNK, LARGEST_CHUNK
from mlx_qwen3.model.attention_kernels import TILE_KEYS, TILE_QUERIES, TILE_SCORES, WAIT_FROM_ROWS
from mlx_qwen3.model.config import ModelConfig

# Prefill starts with the first chunk size. A GPU is fast enough for the largest, a CPU stays at the first.
CPU_CHUNK, GPU_CHUNK = FIRST_CHUNK, LARGEST_CHUNK
# Arrays of a chunk alive at once, in multiples of: queries, keys and values (before and after RoPE, and
# partial sums); the feed-forward's width (gate, up, their product); the hidden size.
ATTENTION_ARRAYS, MLP_ARRAYS, HIDDEN_ARRAYS = 4.5, 3.0, 3.0
# fp32 tiles alive at once in the CPU's attention: scores, weights, mask.
SCORE_TILES = 3.0
# Tiles of dequantized rows alive at once: keys, values, and one being computed.
UNPACKED_TILES = 3
# fp32 rows of logits that a sampler works on.
LOGIT_ROWS = 6
# A GPU frees what a kernel read when the command buffer it is part of is done, and MLX has up to ten of those
# under way, each over 50 million elements at most (docs/metal.md, 9). So old buffers of a growing cache, and
# the activations of some layers, are held for a while. Half of the most is planned for: MLX waits for the GPU
# where it would take more memory than it was given (`limit_memory`).
IN_FLIGHT_ELEMENTS = 10 * 50 * 10**6 // 2
IN_FLIGHT_LAYERS = 3


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that running a model takes. `workspace` is beyond weights and KV cache."""

    weights: int
    cache: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.workspace


def estimate_memory(
    config: ModelConfig,
    weights: int,
    tokens: int,
    cache_config: CacheConfig | None = None,
    itemsize: int = 2,
    chunk: int | None = None,
) -> MemoryEstimate:
    """The memory that a conversation takes on MLX's default device.

    Args:
        config: The model's config.
        weights: Bytes of the weights in memory.
        tokens: Length of the conversation.
        cache_config: Its KV cache; None for a full one without quantization.
        itemsize: Bytes per number of the compute dtype.
        chunk: Tokens per prefill chunk; None for the size that `prefill` chooses.
    """
    cache_config = cache_config or CacheConfig()
    cache = cache_nbytes(config, cache_config, tokens, itemsize)
    chunk = min(chunk or (CPU_CHUNK if is_cpu() else GPU_CHUNK), tokens)
    workspace = _workspace(config, tokens, cache, cache_config, itemsize, chunk)
    return MemoryEstimate(weights, cache, workspace)


def cache_nbytes(config: ModelConfig, cache_config: CacheConfig, tokens: int, itemsize: int) -> int:
    """Bytes of the KV cache of a whole model for `tokens` tokens, at `itemsize` bytes per number."""
    heads = config.num_hidden_layers * config.num_key_value_heads
    rows = cache_config.capacity(tokens)
    return 2 * heads * rows * cache_config.row_nbytes(config.head_dim, itemsize)


def _workspace(
    config: ModelConfig, tokens: int, cache: int, cache_config: CacheConfig, itemsize: int, chunk: int
) -> int:
    """Peak bytes beyond weights and cache, of a prefill chunk or of decoding a token."""
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    attention = ATTENTION_ARRAYS * heads * config.head_dim
    hidden = HIDDEN_ARRAYS * config.hidden_size
    width = max(config.intermediate_size, config.num_experts_per_tok * config.moe_intermediate_size)
    mlp = MLP_ARRAYS * width
    per_token = hidden + max(attention, mlp) if is_cpu() else hidden + attention + mlp
    # While a full cache grows, one layer's old buffers exist beside the new ones; on a GPU those of several.
    growth = cache // config.num_hidden_layers if cache_config.max_size is None else 0
    if not is_cpu():
        growth = min(growth * config.num_hidden_layers, max(growth, IN_FLIGHT_ELEMENTS * itemsize))
    logits = 4 * LOGIT_ROWS * config.vocab_size
    scores = _attention_bytes(config, tokens, cache_config, itemsize, chunk)
    activations = chunk * itemsize * per_token
    in_flight = 0 if is_cpu() else (IN_FLIGHT_LAYERS - 1) * activations
    return int(activations + max(scores, growth, logits, in_flight))


def _attention_bytes(
    config: ModelConfig, tokens: int, cache_config: CacheConfig, itemsize: int, chunk: int
) -> float:
    """Bytes of attention's scores on the CPU, and of the rows that it dequantizes."""
    if not is_cpu():
        return 0 if cache_config.bits is None else _unpacked_bytes(config, tokens, itemsize)
    across = config.num_attention_heads * min(chunk, TILE_QUERIES)
    rows = min(tokens, max(TILE_KEYS, TILE_SCORES // across))
    scores = SCORE_TILES * 4 * across * rows
    unpacked = UNPACKED_TILES * 4 * rows * config.num_key_value_heads * config.head_dim
    return scores + (0 if cache_config.bits is None else unpacked)


def _unpacked_bytes(config: ModelConfig, tokens: int, itemsize: int) -> float:
    """Bytes of the rows that a GPU dequantizes for a prompt, one key head at a time, before it frees them.

    From `WAIT_FROM_ROWS` on each layer is waited for. Before, the command buffers under way hold them.
    """

    def layer(tokens: int) -> int:
        return 2 * tokens * config.head_dim * itemsize * (config.num_key_value_heads + 1)

    unwaited = layer(min(tokens, WAIT_FROM_ROWS))
    held = min(unwaited * config.num_hidden_layers, max(unwaited, IN_FLIGHT_ELEMENTS * itemsize))
    return max(layer(tokens), held)
