"""Are answers of the server what the packages `openai` and `anthropic` take them for?

Answers, events of streams and errors are read with the pydantic models of these packages, strictly: a number
in place of a text is a fault. What no package describes (rerank, tokens) is held to be JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from anthropic import types as anthropic
from openai import types as openai
from openai.types import responses
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from pydantic import TypeAdapter, ValidationError

WHOLE: dict[str, Any] = {
    "/v1/chat/completions": ChatCompletion,
    "/v1/completions": openai.Completion,
    "/v1/embeddings": openai.CreateEmbeddingResponse,
    "/v1/responses": responses.Response,
    "/v1/messages": anthropic.Message,
    "/v1/messages/count_tokens": anthropic.MessageTokensCount,
}
EVENTS: dict[str, Any] = {
    "/v1/chat/completions": ChatCompletionChunk,
    "/v1/completions": openai.Completion,
    "/v1/responses": responses.ResponseStreamEvent,
    "/v1/messages": anthropic.RawMessageStreamEvent,
}


@cache
def reader(kind: Any) -> Callable[..., Any]:
    """Reads a JSON value as one of the types above. Raises pydantic's ValidationError."""
    return TypeAdapter(kind).validate_python


def fault(path: str, status: int, kind: str, body: bytes) -> str:
    """What is wrong with an answer; empty if nothing is.

    Args:
        path: The path of the request.
        status: Of the answer.
        kind: Its content type.
        body: All of it.
    """
    if not body:  # an answer to HEAD has none
        return ""
    try:
        if status >= 400:
            _read_error(path, json.loads(body))
        elif kind.startswith("text/event-stream"):
            for data in _events(body):
                _read_event(path, data)
        elif kind.startswith("application/json"):
            _read_whole(path, json.loads(body))
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"[:1500]
    return ""


def _events(body: bytes) -> Iterator[str]:
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        if any(not line.startswith(("data: ", "event: ")) for line in lines):
            raise ValueError(f"no server-sent event: {block!r:.300}")
        yield "\n".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))


def _read_event(path: str, data: str) -> None:
    if data == "[DONE]":
        return
    value = json.loads(data)
    if isinstance(value.get("error"), dict):
        _read_error(path, value)
    elif value.get("type") != "ping":
        if path == "/v1/completions":  # before its end a choice has none; the package has no type for that
            for choice in value["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
        reader(EVENTS[path])(value, strict=True)


def _read_whole(path: str, value: Any) -> None:
    if (kind := WHOLE.get(path)) is None:
        return
    if path == "/v1/embeddings":  # the package decodes base64 itself, before its types are looked at
        for entry in value["data"]:
            entry["embedding"] = [] if isinstance(entry["embedding"], str) else entry["embedding"]
    reader(kind)(value, strict=True)


def _read_error(path: str, value: Any) -> None:
    if path.startswith("/v1/messages"):
        reader(anthropic.ErrorResponse)(value, strict=True)
    else:
        reader(ErrorObject)(value["error"], strict=True)
