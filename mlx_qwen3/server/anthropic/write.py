"""Writes events as Anthropic's stream, or as one message."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_qwen3.engine.streams import Reply
from mlx_qwen3.events import (
    AnswerDelta,
    Done,
    Event,
    Stats,
    ThinkingDelta,
    ThinkingDone,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from mlx_qwen3.server.call_text import CallText
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.request import Chunk, ServerRequest, Started

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(error: RequestError) -> dict[str, Any]:
    """The JSON of an error. `code` and `param` stand beside what Anthropic's API has."""
    kind = _ERROR_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    message = error.message
    if error.code == "context_length_exceeded":  # Claude Code compacts its conversation when it reads this
        message = f"prompt is too long: {message}"
    told = {"type": kind, "message": message, "code": error.code, "param": error.param}
    return {"type": "error", "error": {name: value for name, value in told.items() if value is not None}}


class MessageWriter:
    """Writes the answer to one request of `/v1/messages`."""

    def __init__(self, request: ServerRequest, started: Started):
        self._request, self._started = request, started
        self._names = {tool["function"]["name"] for tool in request.tools}
        self._shows_thinking = request.options.get("show_thinking", True)
        self._index = -1  # of the latest block
        self._kind: str | None = None  # of the block that is open
        self._thinking: list[str] = []
        self._calls: dict[int, CallText] = {}
        self._has_calls = False
        self._stats: Stats | None = None

    def start(self) -> list[Chunk]:
        usage = self._usage(self._started.prompt_tokens, 0, 0)
        message = self._message([], usage, stop_reason=None, stop_sequence=None)
        return [_chunk("message_start", message=message), *self.keep_alive()]

    def push(self, choice: int, event: Event) -> list[Chunk]:  # noqa: ARG002  # there is one choice
        return list(self._write(event))

    def keep_alive(self) -> list[Chunk]:
        return [_chunk("ping")]

    def end(self) -> list[Chunk]:
        chunks = list(self._close())
        assert self._stats is not None  # Done has come
        ending = self._ending(self._stats)
        usage = self._usage_of(self._stats)
        chunks.append(_chunk("message_delta", delta=ending, usage=usage, **self._edits()))
        return [*chunks, _chunk("message_stop")]

    def fail(self, error: RequestError) -> list[Chunk]:
        return [Chunk(error_body(error), "error")]

    def whole(self, replies: Sequence[Reply[Any]]) -> Mapping[str, Any]:
        reply = replies[0]
        content: list[dict[str, Any]] = []
        if reply.thinking:
            shown = reply.thinking if self._shows_thinking else ""
            content.append({"type": "thinking", "thinking": shown, "signature": _signature(reply.thinking)})
        if reply.answer:
            content.append({"type": "text", "text": reply.answer})
        for call in reply.tool_calls:
            if call.arguments is None:
                content.append({"type": "text", "text": _unusable(call)})
                continue
            self._has_calls = True
            content.append(self._tool_use(call.index, call.name, call.arguments))
        usage = self._usage_of(reply.stats)
        return self._message(content, usage, **self._ending(reply.stats)) | self._edits()

    def _write(self, event: Event) -> Iterator[Chunk]:
        match event:
            case ThinkingDelta(text):
                yield from self._open("thinking", {"thinking": "", "signature": ""})
                self._thinking.append(text)
                if self._shows_thinking:
                    yield self._delta("thinking_delta", thinking=text)
            case ThinkingDone():
                yield from self._close()
            case AnswerDelta(text):
                yield from self._open("text", {"text": ""})
                yield self._delta("text_delta", text=text)
            case ToolCallStart(index, name):
                yield from self._start_call(index, name)
            case ToolCallDelta(index, text):
                if index in self._calls and (piece := self._calls[index].feed(text)):
                    yield self._delta("input_json_delta", partial_json=piece)
            case ToolCall():
                yield from self._end_call(event)
            case Done(stats):
                self._stats = stats

    def _start_call(self, index: int, name: str) -> Iterator[Chunk]:
        """A call of a tool that was offered; another is not announced, since it will be an error."""
        if name in self._names:
            self._calls[index] = CallText()
            yield from self._open("tool_use", self._tool_use(index, name, {}))

    def _end_call(self, call: ToolCall) -> Iterator[Chunk]:
        text = self._calls.pop(call.index, None)
        if call.arguments is None:
            yield from self._close()
            if text is None:  # of what began as a call the client has seen the beginning, as after a limit
                yield from self._open("text", {"text": ""})
                yield self._delta("text_delta", text=_unusable(call))
            return
        if text is None:
            text = CallText()
            yield from self._open("tool_use", self._tool_use(call.index, call.name, {}))
        if piece := text.finish(call.arguments):
            yield self._delta("input_json_delta", partial_json=piece)
        self._has_calls = True
        yield from self._close()

    def _tool_use(self, index: int, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        key = self._started.call_key(0, index)
        return {"type": "tool_use", "id": f"toolu_{key}", "name": name, "input": arguments}

    def _open(self, kind: str, block: Mapping[str, Any]) -> Iterator[Chunk]:
        """Begin a block, unless one of this kind is open."""
        if self._kind == kind:
            return
        yield from self._close()
        self._index += 1
        self._kind = kind
        yield _chunk("content_block_start", index=self._index, content_block={"type": kind, **block})

    def _close(self) -> Iterator[Chunk]:
        if self._kind is None:
            return
        if self._kind == "thinking":
            yield self._delta("signature_delta", signature=_signature("".join(self._thinking)))
            self._thinking.clear()
        self._kind = None
        yield _chunk("content_block_stop", index=self._index)

    def _delta(self, kind: str, **delta: Any) -> Chunk:
        return _chunk("content_block_delta", index=self._index, delta={"type": kind, **delta})

    def _message(
        self, content: list[dict[str, Any]], usage: Mapping[str, Any], **ending: Any
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{self._started.id}",
            "type": "message",
            "role": "assistant",
            "model": self._started.model,
            "content": content,
            **ending,
            "usage": usage,
        }

    def _ending(self, stats: Stats) -> dict[str, Any]:
        reason = stats.finish_reason
        said: str | None = None
        if reason == "length":
            is_full = stats.generated_tokens < self._request.sampling.get("max_tokens", 0)
            name = "model_context_window_exceeded" if is_full else "max_tokens"
        elif reason == "loop":
            name = "max_tokens"  # it was cut off, too
        elif self._has_calls:
            name = "tool_use"
        elif stats.stop_string is not None:
            name, said = "stop_sequence", stats.stop_string
        else:
            name = "end_turn"
        return {"stop_reason": name, "stop_sequence": said}

    def _usage_of(self, stats: Stats) -> dict[str, Any]:
        return self._usage(
            stats.prompt_tokens - stats.cached_tokens, stats.cached_tokens, stats.generated_tokens
        )

    def _usage(self, new: int, cached: int, generated: int) -> dict[str, Any]:
        return {
            "input_tokens": new,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": generated,
        }

    def _edits(self) -> dict[str, Any]:
        return {"context_management": {"applied_edits": []}} if self._request.options.get("has_edits") else {}


def _chunk(kind: str, **values: Any) -> Chunk:
    return Chunk({"type": kind, **values}, kind)


def _signature(thinking: str) -> str:
    """Clients keep a signature with the thinking and send both back. Here it vouches for nothing."""
    return base64.b64encode(hashlib.sha256(thinking.encode("utf-8", "replace")).digest()).decode()


def _unusable(call: ToolCall) -> str:
    """A call that no client could run, as text: what the model wrote."""
    return call.raw
