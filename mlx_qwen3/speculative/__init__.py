"""Speculative decoding: who drafts, how much, and how the model checks it. The same tokens as without."""

from mlx_qwen3.speculative.decoding import Speculation as Speculation
from mlx_qwen3.speculative.drafting import Drafter as Drafter
from mlx_qwen3.speculative.drafting import ModelDrafter as ModelDrafter
from mlx_qwen3.speculative.drafting import TextDrafter as TextDrafter
