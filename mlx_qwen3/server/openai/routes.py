"""The routes of OpenAI's API, and of llama.cpp's for tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.server.errors import RequestError, as_request_error, bad_request
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.http import JsonResponse, error_response, generation_endpoint, json_endpoint, key_of
from mlx_qwen3.server.models import ServedModel
from mlx_qwen3.server.openai.chat import ChatWriter, read_chat
from mlx_qwen3.server.openai.completions import CompletionWriter, read_completion
from mlx_qwen3.server.openai.errors import error_body
from mlx_qwen3.server.openai.messages import read_messages, read_tools
from mlx_qwen3.server.openai.retrieval import embeddings, rerank
from mlx_qwen3.server.openai.sampling import read_thinking
from mlx_qwen3.server.protocol import ApiProtocol
from mlx_qwen3.server.request import ServerRequest
from mlx_qwen3.server.service import Service


def routes(service: Service) -> Sequence[BaseRoute]:
    """The routes. Each path also works without `/v1`, as clients that were given that address need it."""
    chat = generation_endpoint(service, PROTOCOL, read_chat, ChatWriter)
    completion = generation_endpoint(service, PROTOCOL, read_completion, CompletionWriter)
    endpoints: dict[str, tuple[Any, str]] = {
        "/v1/chat/completions": (chat, "POST"),
        "/v1/completions": (completion, "POST"),
        "/v1/embeddings": (json_endpoint(service, PROTOCOL, embeddings(service)), "POST"),
        "/v1/rerank": (json_endpoint(service, PROTOCOL, rerank(service)), "POST"),
        "/v1/models": (_models(service), "GET"),
        "/v1/models/{name:path}": (_model(service), "GET"),
        "/tokenize": (json_endpoint(service, PROTOCOL, _tokenize(service)), "POST"),
        "/detokenize": (json_endpoint(service, PROTOCOL, _detokenize(service)), "POST"),
    }
    made = [Route(path, endpoint, methods=[method]) for path, (endpoint, method) in endpoints.items()]
    for path in [path for path in endpoints if path.startswith("/v1/") and "{" not in path]:
        endpoint, method = endpoints[path]
        made.append(Route(path.removeprefix("/v1"), endpoint, methods=[method]))
    return made


def _entry(model: ServedModel, name: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "mlx-qwen3",
        # Anthropic's list has the same address.
        "type": "model",
        "display_name": name,
        "created_at": created,
    }


def _models(service: Service) -> Any:
    async def endpoint(request: Request) -> Response:  # noqa: ARG001
        pool = service.models
        entries = [_entry(model, model.name) for model in pool]
        entries += [_entry(pool.find(name), alias) for alias, name in pool.aliases.items()]
        ends = {"has_more": False, "first_id": entries[0]["id"], "last_id": entries[-1]["id"]}
        return JsonResponse({"object": "list", "data": entries, **ends})

    return endpoint


def _model(service: Service) -> Any:
    async def endpoint(request: Request) -> Response:
        try:
            name = request.path_params["name"]
            return JsonResponse(_entry(service.models.find(name), name))
        except RequestError as error:
            return error_response(PROTOCOL, error)

    return endpoint


def _tokenize(service: Service) -> Any:
    async def answer(request: Request, body: dict[str, Any]) -> Any:
        fields = Fields(body)
        model = fields.text("model")
        fields.only("add_special", False)
        fields.only("add_special_tokens", False)
        fields.only("parse_special", False)  # text of others never becomes a control token
        with_pieces = fields.flag("with_pieces", False)
        text = fields.text("content", fields.text("prompt"))
        if text is None:
            asked = _conversation(fields, model, key_of(request))
            fields.finish()
            generation_tokens = await service.prompt_ids(asked)
            return {"tokens": generation_tokens, "count": len(generation_tokens)}
        fields.finish()
        _, ids = await service.with_engine(model, _encode, text)
        if with_pieces:
            _, pieces = await service.with_engine(model, _pieces, ids)
            return {"tokens": pieces, "count": len(ids)}
        return {"tokens": ids, "count": len(ids)}

    return answer


def _conversation(fields: Fields, model: str | None, key: str) -> ServerRequest:
    if not fields.has("messages"):
        raise bad_request("give content, a text, or messages, a conversation", "content")
    messages, _ = read_messages(fields.list("messages", []))
    thinking, budget = read_thinking(fields)
    tools = read_tools(fields.list("tools", []))
    return ServerRequest(model, messages, tools=tools, thinking=thinking, thinking_budget=budget, key=key)


def _detokenize(service: Service) -> Any:
    async def answer(request: Request, body: dict[str, Any]) -> Any:  # noqa: ARG001
        fields = Fields(body)
        model, ids = fields.text("model"), fields.list("tokens")
        fields.finish()
        if ids is None or not all(isinstance(id_, int) and not isinstance(id_, bool) for id_ in ids):
            raise bad_request("tokens must be a list of token ids", "tokens")
        _, text = await service.with_engine(model, _decode, ids)
        return {"content": text, "prompt": text}

    return answer


def _encode(core: EngineCore, text: str) -> list[int]:
    return core.tokenizer.encode(text)


def _decode(core: EngineCore, ids: list[int]) -> str:
    if any(not 0 <= id_ < core.config.vocab_size for id_ in ids):
        raise bad_request("tokens holds a token id that the model does not have", "tokens")
    return core.tokenizer.decode(ids)


def _pieces(core: EngineCore, ids: list[int]) -> list[dict[str, Any]]:
    return [{"id": id_, "piece": core.tokenizer.decode([id_])} for id_ in ids]


PROTOCOL = ApiProtocol("openai", ("/",), error_body, routes)

__all__ = ["PROTOCOL", "as_request_error", "routes"]
