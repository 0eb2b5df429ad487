"""/v1/embeddings as OpenAI's, and /v1/rerank as Jina's and Cohere's."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
from starlette.requests import Request

from mlx_qwen3.engine.engine import Engine
from mlx_qwen3.server.errors import bad_request
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.http import key_of
from mlx_qwen3.server.service import Service

MOST_TEXTS = 2048  # as in OpenAI's API
# Texts computed at once. Between two of these, texts that others generate go on.
TEXTS_AT_ONCE = 16

Answer = Callable[[Request, dict[str, Any]], Awaitable[Any]]


def embeddings(service: Service) -> Answer:
    """The endpoint for embeddings."""

    async def answer(request: Request, body: dict[str, Any]) -> Any:
        fields = Fields(body)
        inputs = _inputs(fields)
        form = fields.choice("encoding_format", ("float", "base64"), "float")
        instruction = fields.text("instruction")
        dimensions = fields.integer("dimensions", None, 1)
        model = fields.text("model")
        fields.skip("user")
        fields.finish()
        name, texts = await service.with_engine(model, _texts, inputs)
        adapter = service.models.find(model).adapter
        vectors: list[Any] = []
        for part in _parts(texts):
            _, found = await service.in_turn(
                model, key_of(request), _embed, part, instruction, dimensions, adapter
            )
            vectors += list(found)
        _, tokens = await service.with_engine(model, _count, texts)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, form)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": name, "usage": usage}

    return answer


def rerank(service: Service) -> Answer:
    """The endpoint for reranking."""

    async def answer(request: Request, body: dict[str, Any]) -> Any:
        fields = Fields(body)
        query, documents = fields.text("query"), _documents(fields)
        if query is None:
            raise bad_request("query is missing", "query")
        count = fields.integer("top_n", fields.integer("top_k", len(documents), 1), 1)
        returns = fields.flag("return_documents", False)
        instruction, model = fields.text("instruction"), fields.text("model")
        fields.skip("user")
        fields.finish()
        name, tokens = await service.with_engine(model, _count, [query, *documents])
        adapter = service.models.find(model).adapter
        scores: list[float] = []
        for part in _parts(documents):
            _, found = await service.in_turn(
                model, key_of(request), _rerank, query, part, instruction, adapter
            )
            scores += found
        results = []
        for index in sorted(range(len(scores)), key=lambda index: -scores[index])[:count]:
            result = {"index": index, "relevance_score": scores[index]}
            results.append(result | ({"document": {"text": documents[index]}} if returns else {}))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {
            "id": f"rerank-{uuid4().hex}",
            "object": "list",
            "model": name,
            "results": results,
            "usage": usage,
        }

    return answer


def _inputs(fields: Fields) -> list[str | list[int]]:
    value = fields.value("input")
    values = [value] if isinstance(value, str) or _are_ids(value) else value
    if not isinstance(values, list) or not values:
        raise bad_request("input must be a text, token ids, or a list of these", "input")
    if len(values) > MOST_TEXTS:
        raise bad_request(f"input may have {MOST_TEXTS:,} items, not {len(values):,}", "input")
    for number, item in enumerate(values):
        if not (isinstance(item, str) and item) and not _are_ids(item):
            raise bad_request(
                f"input[{number}] must be a text or token ids, and not empty", f"input[{number}]"
            )
    return values


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _documents(fields: Fields) -> list[str]:
    values = fields.list("documents", [], MOST_TEXTS)
    if not values:
        raise bad_request("documents must be a list of texts", "documents")
    texts = []
    for number, value in enumerate(values):
        text = value.get("text") if isinstance(value, dict) and set(value) == {"text"} else value
        if not isinstance(text, str):
            raise bad_request(f"documents[{number}] must be a text", f"documents[{number}]")
        texts.append(text)
    return texts


def _texts(engine: Engine, inputs: list[str | list[int]]) -> list[str]:
    """Inputs as texts; ids are decoded."""
    size, texts = engine.config.vocab_size, []
    for number, item in enumerate(inputs):
        if isinstance(item, list) and any(not 0 <= id_ < size for id_ in item):
            raise bad_request("input holds a token id that the model does not have", f"input[{number}]")
        texts.append(item if isinstance(item, str) else engine.tokenizer.decode(item))
    return texts


def _embed(
    engine: Engine,
    texts: list[str],
    instruction: str | None,
    dimensions: int | None,
    adapter: str | None,
) -> Any:
    most = engine.config.hidden_size
    if dimensions is not None and dimensions > most:
        raise bad_request(f"dimensions must be at most {most:,}, not {dimensions:,}", "dimensions")
    return engine.embed(texts, instruction, dimensions, adapter)


def _rerank(
    engine: Engine, query: str, documents: list[str], instruction: str | None, adapter: str | None
) -> list[float]:
    return engine.rerank(query, documents, instruction, adapter)


def _count(engine: Engine, texts: list[str]) -> int:
    return sum(len(engine.tokenizer.encode(text)) for text in texts)


def _encoded(vector: Any, form: str) -> Any:
    if form == "base64":
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
    return [float(value) for value in vector]


def _parts(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), TEXTS_AT_ONCE):
        yield items[start : start + TEXTS_AT_ONCE]
