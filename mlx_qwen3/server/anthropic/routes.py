"""The endpoints of Anthropic's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from mlx_qwen3.server.anthropic.read import read_count_request, read_request
from mlx_qwen3.server.anthropic.write import MessageWriter, error_body
from mlx_qwen3.server.http import generation_endpoint, json_endpoint
from mlx_qwen3.server.protocol import ApiProtocol
from mlx_qwen3.server.service import Service


def _routes(service: Service) -> Sequence[BaseRoute]:
    async def count(_: Request, body: dict[str, Any]) -> dict[str, Any]:
        request = read_count_request(body)
        edits: dict[str, Any] = {}
        tokens = await service.count_tokens(request)
        if request.options["has_edits"]:
            edits = {"context_management": {"original_input_tokens": tokens}}
        return {"input_tokens": tokens, **edits}

    messages = generation_endpoint(service, PROTOCOL, read_request, MessageWriter)
    return [
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/v1/messages/count_tokens", json_endpoint(service, PROTOCOL, count), methods=["POST"]),
    ]


PROTOCOL = ApiProtocol("anthropic", ("/v1/messages",), error_body, _routes)
