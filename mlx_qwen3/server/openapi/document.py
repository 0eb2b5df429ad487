"""The OpenAPI document: each path with its body, its answers and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mlx_qwen3.server.http import JsonResponse
from mlx_qwen3.server.openapi import answers, protocols, requests
from mlx_qwen3.server.openapi.schemas import TEXT, Schema

# An event of a stream, whose data is JSON or `[DONE]`.
EVENT: Schema = {"type": "object", "properties": {"event": TEXT, "data": TEXT}, "required": ["data"]}
# What any endpoint may answer in place of what was asked for.
ERRORS = {
    400: "The request cannot be obeyed: `param` names the field.",
    401: "An API key is missing or unknown.",
    403: "The page or the name of the host is not allowed.",
    404: "There is no such model, response or path.",
    405: "The path has other methods.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many requests wait; `Retry-After` says when to come again.",
    500: "The server failed.",
    503: "The model cannot be loaded, or the server is stopping.",
    504: "The request took longer than the server allows.",
}


@cache
def document() -> dict[str, Any]:
    """The document. It is the same for every server of this version."""
    from mlx_qwen3 import __version__

    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlx-qwen3",
            "version": __version__,
            "description": "OpenAI's, Anthropic's and the Responses API over Qwen3 models on this machine.",
        },
        "paths": {**_generation(), **_responses(), **_models_and_tokens(), **_monitoring()},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        # An API key is asked for where the server has some.
        "security": [{}, {"key": []}],
    }


def _generation() -> dict[str, Any]:
    of_anthropic = answers.ANTHROPIC_ERROR
    return {
        "/v1/chat/completions": _post("Answer a conversation", requests.CHAT, answers.CHAT, streams=True),
        "/v1/completions": _post("Continue a text", requests.COMPLETION, answers.COMPLETION, streams=True),
        "/v1/messages": _post(
            "Answer a conversation, as Anthropic's API",
            protocols.MESSAGES,
            answers.MESSAGE,
            streams=True,
            error=of_anthropic,
        ),
        "/v1/messages/count_tokens": _post(
            "Count the tokens of a conversation",
            protocols.MESSAGE_TOKENS,
            answers.MESSAGE_TOKENS,
            error=of_anthropic,
        ),
        "/v1/embeddings": _post("Make vectors of texts", requests.EMBEDDINGS, answers.EMBEDDINGS),
        "/v1/rerank": _post("Score documents by a query", requests.RERANK, answers.RERANK),
    }


def _responses() -> dict[str, Any]:
    one = [_in_path("response_id")]
    return {
        "/v1/responses": _post(
            "Answer a conversation, and store it", protocols.RESPONSES, answers.RESPONSE, streams=True
        ),
        "/v1/responses/input_tokens": _post(
            "Count the tokens of a conversation", protocols.RESPONSES, answers.RESPONSE_TOKENS
        ),
        "/v1/responses/{response_id}": {
            "parameters": one,
            "get": _operation("A stored response", answers.RESPONSE),
            "delete": _operation("Forget a stored response", answers.DELETED),
        },
        "/v1/responses/{response_id}/input_items": {
            "parameters": [
                *one,
                _in_query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                _in_query("order", {"type": "string", "enum": ["asc", "desc"]}),
                _in_query("after", TEXT),
            ],
            "get": _operation("What a stored response was given", answers.RESPONSE_ITEMS),
        },
        "/v1/responses/{response_id}/cancel": {
            "parameters": one,
            "post": _operation("Refused: close the connection instead", answers.RESPONSE),
        },
    }


def _models_and_tokens() -> dict[str, Any]:
    return {
        "/v1/models": {"get": _operation("The models", answers.MODELS)},
        "/v1/models/{name}": {
            "parameters": [_in_path("name")],
            "get": _operation("One model", answers.MODEL),
        },
        "/tokenize": _post("Token ids of a text or a conversation", requests.TOKENIZE, answers.TOKENIZE),
        "/detokenize": _post("The text of token ids", requests.DETOKENIZE, answers.DETOKENIZE),
    }


def _monitoring() -> dict[str, Any]:
    health = _operation("Whether answers can be given", answers.HEALTH)
    health["responses"]["503"] = _json("They cannot, for this reason.", answers.HEALTH)
    metrics = _operation("Figures for Prometheus", TEXT)
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": TEXT}}
    page = _operation("A page to chat in the browser", TEXT)
    page["responses"]["200"]["content"] = {"text/html": {"schema": TEXT}}
    return {
        "/health": {"get": health},
        "/v1/health": {"get": health},
        "/metrics": {"get": metrics},
        "/status": {"get": _operation("What the server is doing", answers.STATUS)},
        "/slots": {"get": _operation("The requests that run or wait", answers.SLOTS)},
        "/openapi.json": {"get": _operation("This document", {"type": "object"})},
        "/": {"get": page},
    }


def _post(
    summary: str, body: Schema, answer: Schema, *, streams: bool = False, error: Schema = answers.ERROR
) -> dict[str, Any]:
    operation = _operation(summary, answer, error=error)
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if streams:
        operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": EVENT}
    return {"post": operation}


def _operation(summary: str, answer: Schema, *, error: Schema = answers.ERROR) -> dict[str, Any]:
    refusals = {str(status): _json(meaning, error) for status, meaning in ERRORS.items()}
    return {"summary": summary, "responses": {"200": _json("The answer.", answer), **refusals}}


def _json(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}}


def _in_query(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def openapi_routes() -> Sequence[BaseRoute]:
    """The route of the document."""

    async def show(request: Request) -> Response:  # noqa: ARG001
        return JsonResponse(document())

    return [Route("/openapi.json", show)]
