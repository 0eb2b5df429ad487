"""Speculative decoding: who drafts, how much, and how the model checks it. The same tokens as without."""

from mlx_qwen3.generation.speculative.decode import Speculation as Speculation
