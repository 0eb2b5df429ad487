"""/v1/completions: the text that follows a text, without a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_qwen3.engine.streams import Reply
from mlx_qwen3.events import AnswerDelta, Done, Event, Logprobs, Stats
from mlx_qwen3.server.errors import RequestError, bad_request
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.openai.chat import DONE, finish_reason
from mlx_qwen3.server.openai.errors import error_body
from mlx_qwen3.server.openai.sampling import BOOKKEEPING, read_max_tokens, read_sampling
from mlx_qwen3.server.request import Chunk, ServerRequest, Started

MAX_TOKENS = 16  # as in OpenAI's API
MOST_LOGPROBS = 5


def read_completion(body: Mapping[str, Any]) -> ServerRequest:
    """The request in a body. Raises RequestError that names what is wrong."""
    fields = Fields(body)
    prompts = _prompts(fields)
    logprobs = fields.integer("logprobs", None, 0, MOST_LOGPROBS)
    sampling = {"max_tokens": MAX_TOKENS, **read_sampling(fields), **read_max_tokens(fields, "max_tokens")}
    if logprobs is not None:
        sampling |= {"logprobs": True, "top_logprobs": logprobs}
    echo = fields.flag("echo", False)
    if echo and (logprobs is not None or not all(isinstance(prompt, str) for prompt in prompts)):
        raise fields.error("echo", "goes with prompts that are text, and not with logprobs")
    count = fields.integer("n", 1, 1)
    fields.only("best_of", 1, count)
    fields.only("suffix")
    fields.skip(*BOOKKEEPING)
    include_usage = False
    if (stream := fields.object("stream_options")) is not None:
        include_usage = stream.flag("include_usage", False)
        stream.flag("include_obfuscation")
        stream.finish()
    request = ServerRequest(
        model=fields.text("model"),
        prompts=prompts,
        sampling=sampling,
        n=count,
        stream=fields.flag("stream", False),
        options={"include_usage": include_usage, "echo": echo, "logprobs": logprobs},
    )
    fields.finish()
    return request


def _prompts(fields: Fields) -> list[str | list[int]]:
    value = fields.value("prompt")
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(_is_id(item) for item in value):
            return [value]
        if all(
            isinstance(item, str) or (isinstance(item, list) and all(map(_is_id, item))) for item in value
        ):
            return value
    raise bad_request("prompt must be a text, a list of token ids, or a list of these", "prompt")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class CompletionWriter:
    """Writes the answer to one completion request."""

    def __init__(self, request: ServerRequest, started: Started):
        self._request, self._started = request, started
        self._has_usage = bool(request.options.get("include_usage"))
        self._stats: list[Stats] = []
        self._logprobs: dict[int, list[Logprobs]] = {}
        self._offsets: dict[int, int] = {}

    def start(self) -> list[Chunk]:
        if not self._request.options.get("echo"):
            return []
        return [self._chunk(number, self._prompt(number)) for number in range(self._request.choices)]

    def push(self, choice: int, event: Event) -> list[Chunk]:
        match event:
            case Logprobs():
                self._logprobs.setdefault(choice, []).append(event)
            case AnswerDelta(text):
                return [self._chunk(choice, text, logprobs=self._take_logprobs(choice))]
            case Done(stats):
                self._stats.append(stats)
                return [self._chunk(choice, "", finish_reason(stats, 0), self._take_logprobs(choice))]
        return []

    def keep_alive(self) -> list[Chunk]:
        return [self._chunk(0, "")]

    def end(self) -> list[Chunk]:
        if not self._has_usage:
            return [DONE]
        return [Chunk({**self._head(), "choices": [], "usage": self._usage(self._stats)}), DONE]

    def fail(self, error: RequestError) -> list[Chunk]:
        return [Chunk(error_body(error)), DONE]

    def whole(self, replies: Sequence[Reply[Any]]) -> Mapping[str, Any]:
        choices = []
        for number, reply in enumerate(replies):
            self._logprobs[number] = list(reply.logprobs)
            text = (self._prompt(number) if self._request.options.get("echo") else "") + reply.answer
            choices.append(
                {
                    "text": text,
                    "index": number,
                    "logprobs": self._take_logprobs(number),
                    "finish_reason": finish_reason(reply.stats, 0),
                }
            )
        return {**self._head(), "choices": choices, "usage": self._usage([r.stats for r in replies])}

    def _prompt(self, number: int) -> str:
        prompts = self._request.prompts or ()
        return str(prompts[number // self._request.n])

    def _take_logprobs(self, choice: int) -> dict[str, Any] | None:
        if self._request.options.get("logprobs") is None:
            return None
        events = self._logprobs.pop(choice, [])
        offsets, offset = [], self._offsets.get(choice, 0)
        for event in events:
            offsets.append(offset)
            offset += len(event.token.text)
        self._offsets[choice] = offset
        return {
            "tokens": [event.token.text for event in events],
            "token_logprobs": [max(event.token.logprob, -9999.0) for event in events],
            "top_logprobs": [{top.text: max(top.logprob, -9999.0) for top in event.top} for event in events],
            "text_offset": offsets,
        }

    def _usage(self, stats: Sequence[Stats]) -> dict[str, Any]:
        prompt = self._started.prompt_tokens
        generated = sum(each.generated_tokens for each in stats)
        cached = sum(each.cached_tokens for each in stats)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
        }

    def _head(self) -> dict[str, Any]:
        started = self._started
        return {
            "id": f"cmpl-{started.id}",
            "object": "text_completion",
            "created": started.created,
            "model": started.model,
            "system_fingerprint": None,
        }

    def _chunk(self, number: int, text: str, reason: str | None = None, logprobs: Any = None) -> Chunk:
        choice = {"text": text, "index": number, "logprobs": logprobs, "finish_reason": reason}
        data = {**self._head(), "choices": [choice]}
        return Chunk({**data, "usage": None} if self._has_usage else data)
