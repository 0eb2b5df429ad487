"""Writes events as the stream of the Responses API, or as one response."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlx_qwen3.engine.streams import Reply
from mlx_qwen3.events import (
    AnswerDelta,
    Done,
    Event,
    Logprobs,
    Stats,
    ThinkingDelta,
    ThinkingDone,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.request import Chunk, ServerRequest, Started
from mlx_qwen3.server.responses.output import Call, Message, OpenItem, Reasoning

Save = Callable[[dict[str, Any], list[Any]], None]
"""Stores a response with the input items it was given."""


class ResponseWriter:
    """Writes the answer to one request of `/v1/responses`.

    The output is a list of items, one after another. At most one is open: it has begun and not ended.
    """

    def __init__(self, request: ServerRequest, started: Started, save: Save):
        self._request, self._started, self._save = request, started, save
        self._names = {tool["function"]["name"] for tool in request.tools}
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: OpenItem | None = None
        self._logprobs: list[Logprobs] = []  # of tokens whose text is still to come
        self._stats: Stats | None = None

    def start(self) -> list[Chunk]:
        response = self._response("in_progress")
        return [self._chunk("response.created", response=response), *self.keep_alive()]

    def push(self, choice: int, event: Event) -> list[Chunk]:  # noqa: ARG002  # there is one choice
        return list(self._write(event))

    def keep_alive(self) -> list[Chunk]:
        return [self._chunk("response.in_progress", response=self._response("in_progress"))]

    def end(self) -> list[Chunk]:
        status = self._status()
        chunks = list(self._close("completed" if status == "completed" else "incomplete"))
        response = self._finished(status)
        return [*chunks, self._chunk(f"response.{status}", response=response)]

    def fail(self, error: RequestError) -> list[Chunk]:
        response = self._response("failed")
        codes = {"context_length_exceeded": "invalid_prompt", "rate_limit_exceeded": "rate_limit_exceeded"}
        code = codes.get(error.code or "", "server_error" if error.status >= 500 else "invalid_prompt")
        response["error"] = {"code": code, "message": error.message}
        return [self._chunk("response.failed", response=response)]

    def whole(self, replies: Sequence[Reply[Any]]) -> Mapping[str, Any]:
        for event in _events_of(replies[0]):
            self.push(0, event)
        status = self._status()
        list(self._close("completed" if status == "completed" else "incomplete"))
        return self._finished(status)

    def _write(self, event: Event) -> Iterator[Chunk]:
        match event:
            case Logprobs():
                self._logprobs.append(event)
            case ThinkingDelta(text):
                self._logprobs.clear()
                yield from self._think(text)
            case ThinkingDone():
                self._logprobs.clear()
                yield from self._close()
            case AnswerDelta(text):
                yield from self._say(text)
            case ToolCallStart(index, name):
                if name in self._names:  # a call of another tool will be an error
                    yield from self._begin_call(index, name)
            case ToolCallDelta(index, text):
                if isinstance(self._open, Call) and self._open.index == index:
                    yield from self._chunks(self._open.push(text))
            case ToolCall():
                yield from self._end_call(event)
            case Done(stats):
                self._stats = stats

    def _say(self, text: str) -> Iterator[Chunk]:
        message = self._open
        if not isinstance(message, Message):
            message = Message(*self._place("msg"))
            yield from self._begin(message)
        message.add_logprobs(self._logprobs)
        self._logprobs = []
        yield from self._chunks(message.push(text))

    def _think(self, text: str) -> Iterator[Chunk]:
        reasoning = self._open
        if not isinstance(reasoning, Reasoning):
            reasoning = Reasoning(*self._place("rs"), self._request.options)
            yield from self._begin(reasoning)
        yield from self._chunks(reasoning.push(text))

    def _place(self, prefix: str) -> tuple[str, int]:
        """The id and the place of the next item."""
        at = len(self._output) + (self._open is not None)
        return f"{prefix}_{self._started.id}_{at}", at

    def _begin(self, item: OpenItem) -> Iterator[Chunk]:
        """End the item that is open, and begin another."""
        yield from self._close()
        self._open = item
        yield from self._chunks(item.start())

    def _begin_call(self, index: int, name: str) -> Iterator[Chunk]:
        call = Call(
            *self._place("fc"),
            index=index,
            call_id=f"call_{self._started.call_key(0, index)}",
            name=name,
            namespace=self._request.options.get("namespaces", {}).get(name),
        )
        yield from self._begin(call)

    def _end_call(self, call: ToolCall) -> Iterator[Chunk]:
        is_open = isinstance(self._open, Call) and self._open.index == call.index
        if call.arguments is None:
            if is_open:
                yield from self._close("incomplete")
            else:
                yield from self._say(call.raw)
            return
        if not is_open:
            yield from self._begin_call(call.index, call.name)
        if isinstance(self._open, Call):
            yield from self._chunks(self._open.finish(call.arguments))
        yield from self._close()

    def _close(self, status: str = "completed") -> Iterator[Chunk]:
        if self._open is None:
            return
        yield from self._chunks(self._open.end(status))
        self._output.append(self._open.item(status))
        self._open = None

    def _chunks(self, events: Any) -> Iterator[Chunk]:
        for kind, values in events:
            yield self._chunk(f"response.{kind}", **values)

    def _chunk(self, kind: str, **values: Any) -> Chunk:
        self._sequence += 1
        return Chunk({"type": kind, "sequence_number": self._sequence - 1, **values}, kind)

    def _status(self) -> str:
        assert self._stats is not None  # Done has come
        return "incomplete" if self._stats.finish_reason in ("length", "loop", "cancelled") else "completed"

    def _finished(self, status: str) -> dict[str, Any]:
        assert self._stats is not None
        response = self._response(status)
        response["usage"] = _usage(self._stats)
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            response["completed_at"] = self._started.created + round(
                self._stats.queue_time + self._stats.ttft
            )
        if response["store"]:
            self._save(response, self._request.options["items"])
        return response

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": f"resp_{self._started.id}",
            "object": "response",
            "created_at": self._started.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self._started.model,
            "output": list(self._output),
            **self._request.options["echo"],
            "usage": None,
        }


def _events_of(reply: Reply[Any]) -> Iterator[Event]:
    """What led to a reply, as far as an output depends on it."""
    if reply.thinking:
        yield ThinkingDelta(reply.thinking)
    if reply.thinking or reply.logprobs:
        yield ThinkingDone(0, 0)
    yield from _answer_logprobs(reply.logprobs)
    if reply.answer:
        yield AnswerDelta(reply.answer)
    yield from reply.tool_calls
    yield Done(reply.stats)


def _answer_logprobs(logprobs: Sequence[Logprobs]) -> Sequence[Logprobs]:
    """Those of the tokens after thinking, without the one that ended the turn."""
    ends = [index for index, item in enumerate(logprobs) if item.token.text == "</think>"]
    rest = logprobs[ends[-1] + 1 :] if ends else logprobs
    return rest[:-1] if rest and rest[-1].token.text in ("<|im_end|>", "<|endoftext|>") else rest


def _usage(stats: Stats) -> dict[str, Any]:
    return {
        "input_tokens": stats.prompt_tokens,
        "input_tokens_details": {"cached_tokens": stats.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": stats.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": stats.thinking_tokens},
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
    }
