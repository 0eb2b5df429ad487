"""Text to ids and back, and the chat template between messages and text."""

from mlx_qwen3.tokenizer.tokenizer import Tokenizer as Tokenizer
