"""Anthropic's API: /v1/messages and /v1/messages/count_tokens, as Claude Code uses it."""

from mlx_qwen3.server.anthropic.routes import PROTOCOL

__all__ = ["PROTOCOL"]
