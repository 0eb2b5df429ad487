"""/v1/chat/completions: JSON -> ServerRequest, and events -> chunks or one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from mlx_qwen3.server.call_text import CallText
from mlx_qwen3.server.errors import RequestError, bad_request
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.openai.errors import error_body
from mlx_qwen3.server.openai.messages import read_messages, read_schema, read_tool_choice, read_tools
from mlx_qwen3.server.openai.sampling import (
    BOOKKEEPING,
    read_max_tokens,
    read_sampling,
    read_thinking,
    read_top_logprobs,
)
from mlx_qwen3.server.request import Chunk, ServerRequest, Started

DONE = Chunk("[DONE]")
FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "loop": "length",
    "cancelled": "length",
}


def read_chat(body: Mapping[str, Any]) -> ServerRequest:
    """The request in a body. Raises RequestError that names what is wrong."""
    fields = Fields(body)
    messages, is_prefix = read_messages(fields.list("messages", []))
    tools = read_tools(fields.list("tools", []))
    choice, tool_name = read_tool_choice(fields)
    thinking, budget = read_thinking(fields)
    sampling = {
        **read_sampling(fields),
        **read_max_tokens(fields, "max_completion_tokens", "max_tokens"),
        **read_top_logprobs(fields),
    }
    continued = fields.flag("continue_final_message", is_prefix)
    with_header = fields.flag("add_generation_prompt", not continued)
    if with_header == continued:
        raise fields.error("add_generation_prompt", "must be the opposite of continue_final_message")
    if continued and messages[-1]["role"] != "assistant":
        raise bad_request("only a message of the assistant can be continued", "continue_final_message")
    request = ServerRequest(
        model=fields.text("model"),
        messages=messages,
        tools=tools,
        tool_choice=choice,  # type: ignore[arg-type]
        tool_name=tool_name,
        parallel_tool_calls=fields.flag("parallel_tool_calls", True),
        thinking=thinking,
        thinking_budget=budget,
        sampling=sampling,
        schema=read_schema(fields),
        n=fields.integer("n", 1, 1),
        stream=fields.flag("stream", False),
        continue_final_message=continued,
        options=_options(fields),
    )
    if choice != "auto" and not tools and (choice != "none"):
        raise bad_request("tool_choice needs tools", "tool_choice")
    _refuse(fields)
    fields.finish()
    return request


def _options(fields: Fields) -> dict[str, Any]:
    options = {
        "include_usage": False,
        "include_reasoning": fields.flag("include_reasoning", True),
    }
    if (stream := fields.object("stream_options")) is not None:
        options["include_usage"] = stream.flag("include_usage", False)
        stream.flag("include_obfuscation")
        stream.flag("continuous_usage_stats")
        stream.finish()
    return options


def _refuse(fields: Fields) -> None:
    """Fields that may only say what is done in any case."""
    fields.skip(*BOOKKEEPING)
    fields.only("modalities", ["text"])
    fields.only("store", False)
    fields.only("service_tier", "auto", "default")
    fields.only("verbosity", "medium")
    fields.only("cache_prompt", True)
    fields.only("reasoning_format", "auto", "deepseek", "parsed")
    fields.only("functions", [])
    fields.only("function_call", "auto", "none")


class ChatWriter:
    """Writes the answer to one chat request."""

    def __init__(self, request: ServerRequest, started: Started):
        self._request, self._started = request, started
        self._choices = [_Choice(number, request, started) for number in range(request.choices)]
        self._has_usage = bool(request.options.get("include_usage"))

    def start(self) -> list[Chunk]:
        return [self._chunk(choice.number, {"role": "assistant", "content": ""}) for choice in self._choices]

    def push(self, choice: int, event: Event) -> list[Chunk]:
        return [
            self._chunk(choice, delta, reason, logprobs)
            for delta, reason, logprobs in self._choices[choice].push(event)
        ]

    def keep_alive(self) -> list[Chunk]:
        return [self._chunk(0, {"content": ""})]

    def end(self) -> list[Chunk]:
        chunks = []
        if self._has_usage:
            usage = usage_of([choice.stats for choice in self._choices if choice.stats is not None])
            chunks.append(Chunk({**self._head(), "choices": [], "usage": usage}))
        return [*chunks, DONE]

    def fail(self, error: RequestError) -> list[Chunk]:
        return [Chunk(error_body(error)), DONE]

    def whole(self, replies: Sequence[Reply[Any]]) -> Mapping[str, Any]:
        choices = [
            _whole_choice(number, reply, self._request, self._started) for number, reply in enumerate(replies)
        ]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": usage_of([reply.stats for reply in replies]),
        }

    def _head(self, kind: str = "chat.completion.chunk") -> dict[str, Any]:
        started = self._started
        return {
            "id": f"chatcmpl-{started.id}",
            "object": kind,
            "created": started.created,
            "model": started.model,
            "system_fingerprint": None,
        }

    def _chunk(
        self, number: int, delta: Mapping[str, Any], reason: str | None = None, logprobs: Any = None
    ) -> Chunk:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        data = {**self._head(), "choices": [choice]}
        return Chunk({**data, "usage": None} if self._has_usage else data)


class _Choice:
    """The stream of one choice. `push` gives (delta, finish reason, logprobs)."""

    def __init__(self, number: int, request: ServerRequest, started: Started):
        self.number = number
        self.stats: Stats | None = None
        self._shows_thinking = bool(request.options.get("include_reasoning", True))
        self._started = started
        self._calls: dict[int, _Call] = {}
        self._logprobs: list[dict[str, Any]] = []  # of tokens whose text did not come yet
        self._sent, self._json, self._has_schema = 0, "", request.schema is not None
        self._is_after_call = self._has_answer = False

    def push(self, event: Event) -> list[tuple[dict[str, Any], str | None, Any]]:
        match event:
            case Logprobs():
                self._logprobs.append(logprob_entry(event))
            case ThinkingDelta(text):
                self._logprobs.clear()  # they are of the answer alone
                if self._shows_thinking:
                    return [({"reasoning_content": text, "reasoning": text}, None, None)]
            case ThinkingDone():
                self._logprobs.clear()
            case AnswerDelta(text):
                self._json += text if self._has_schema else ""
                return [({"content": self._paragraph() + text}, None, self._take_logprobs())]
            case ToolCallStart(index, name):
                self._calls[index] = _Call(name)
            case ToolCallDelta(index, text):
                if self._started.streams_calls:
                    return self._call_deltas(index, self._calls[index].text.feed(text))
            case ToolCall():
                self._logprobs.clear()
                self._is_after_call = True
                return self._finish_call(event)
            case Done(stats):
                self.stats = stats
                return [({}, finish_reason(stats, self._sent, self._json), None)]
        return []

    def _paragraph(self) -> str:
        """What separates text after a call from the text before it."""
        separator = "\n\n" if self._has_answer and self._is_after_call else ""
        self._has_answer, self._is_after_call = True, False
        return separator

    def _take_logprobs(self) -> Any:
        entries, self._logprobs = self._logprobs, []
        return {"content": entries, "refusal": None} if entries else None

    def _call_deltas(self, index: int, text: str) -> list[tuple[dict[str, Any], str | None, Any]]:
        if not text:
            return []
        call, starts = self._calls[index], []
        if call.place is None:
            call.place, self._sent = self._sent, self._sent + 1
            start = call_entry(f"call_{self._started.call_key(self.number, index)}", call.name, "")
            starts.append({"index": call.place, **start})
        more = {"index": call.place, "function": {"arguments": text}}
        return [({"tool_calls": [entry]}, None, None) for entry in (*starts, more)]

    def _finish_call(self, event: ToolCall) -> list[tuple[dict[str, Any], str | None, Any]]:
        call = self._calls.setdefault(event.index, _Call(event.name))
        if event.arguments is not None:
            return self._call_deltas(event.index, call.text.finish(event.arguments))
        if call.place is None:  # no client could use it, but nothing is lost
            return [({"content": self._paragraph() + event.raw}, None, None)]
        return []


class _Call:
    """A call being streamed. place: its number among those sent."""

    def __init__(self, name: str):
        self.name, self.text = name, CallText()
        self.place: int | None = None


def _whole_choice(number: int, reply: Reply[Any], request: ServerRequest, started: Started) -> dict[str, Any]:
    calls, unusable = [], []
    for call in reply.tool_calls:
        if call.arguments is None:
            unusable.append(call.raw)
            continue
        text = CallText().finish(call.arguments)
        calls.append(call_entry(f"call_{started.call_key(number, call.index)}", call.name, text))
    content = "\n".join([text for text in (reply.answer, *unusable) if text])
    message: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None}
    if reply.thinking and request.options.get("include_reasoning", True):
        message |= {"reasoning_content": reply.thinking, "reasoning": reply.thinking}
    if calls:
        message["tool_calls"] = calls
    return {
        "index": number,
        "message": {**message, "refusal": None, "annotations": []},
        "logprobs": _answer_logprobs(reply),
        "finish_reason": finish_reason(
            reply.stats, len(calls), reply.answer if request.schema is not None else ""
        ),
    }


def _answer_logprobs(reply: Reply[Any]) -> Any:
    """The logprobs of the answer's tokens: the last ones, less what ended the turn."""
    if not reply.logprobs:
        return None
    entries = [logprob_entry(item) for item in reply.logprobs]
    start = next((n + 1 for n, entry in enumerate(entries) if entry["token"] == "</think>"), 0)
    ends = [
        n for n, entry in enumerate(entries) if n >= start and entry["token"] in ("<tool_call>", "<|im_end|>")
    ]
    return {"content": entries[start : ends[0] if ends else None], "refusal": None}


def call_entry(id_: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a tool."""
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def logprob_entry(event: Logprobs) -> dict[str, Any]:
    """A token with its logprob and its likeliest rivals."""
    named = [
        {"token": item.text, "logprob": max(item.logprob, -9999.0), "bytes": list(item.text.encode())}
        for item in (event.token, *event.top)
    ]
    return {**named[0], "top_logprobs": named[1:]}


def finish_reason(stats: Stats, calls: int, answer: str = "") -> str:
    """Why a choice ended: `tool_calls` only if `calls` were sent.

    answer: that of a request with a schema. It is led to its end before a limit cuts it off; clients take
    `length` for an answer that is broken, so one that is whole has stopped.
    """
    reason = FINISH[stats.finish_reason]
    if calls and reason == "stop":
        return "tool_calls"
    if reason == "tool_calls" and not calls:
        return "stop"
    return "stop" if reason == "length" and answer and _is_json(answer) else reason


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def usage_of(stats: Sequence[Stats]) -> dict[str, Any]:
    """What several choices of one prompt used."""
    prompt = max((each.prompt_tokens for each in stats), default=0)
    cached = max((each.cached_tokens for each in stats), default=0)
    generated = sum(each.generated_tokens for each in stats)
    thinking = sum(each.thinking_tokens for each in stats)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }
