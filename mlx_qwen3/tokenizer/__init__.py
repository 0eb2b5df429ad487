"""Text <-> token ids, and the chat template that makes a prompt of messages."""

from mlx_qwen3.tokenizer.tokenizer import Tokenizer as Tokenizer
