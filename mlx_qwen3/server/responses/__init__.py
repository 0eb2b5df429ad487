"""OpenAI's Responses API: /v1/responses, as Codex and OpenAI's clients use it."""

from mlx_qwen3.server.responses.routes import PROTOCOL

__all__ = ["PROTOCOL"]
