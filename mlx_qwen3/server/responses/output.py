"""The items of a response's output while they are written: reasoning, a message, a call of a function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from mlx_qwen3.events import Logprobs, TokenLogprob
from mlx_qwen3.server.call_text import CallText
from mlx_qwen3.server.responses.items import seal

ItemEvent = tuple[str, dict[str, Any]]
"""The type of an event without `response.`, and its fields."""


class OpenItem(Protocol):
    """An item that has begun."""

    def start(self) -> Iterator[ItemEvent]: ...

    def push(self, text: str) -> Iterator[ItemEvent]:
        """More of its text."""

    def end(self, status: str) -> Iterator[ItemEvent]: ...

    def item(self, status: str) -> dict[str, Any]:
        """The item as it is now."""


class _Item:
    """What items have in common: an id, and a place in the output."""

    def __init__(self, item_id: str, at: int):
        self._place: dict[str, Any] = {"item_id": item_id, "output_index": at}

    def item(self, status: str) -> dict[str, Any]:
        raise NotImplementedError

    def _as_output(self, status: str) -> dict[str, Any]:
        return {"output_index": self._place["output_index"], "item": self.item(status)}


class Reasoning(_Item):
    """Thinking: as content, or as a summary where the client asked for one."""

    def __init__(self, item_id: str, at: int, options: Mapping[str, Any]):
        super().__init__(item_id, at)
        self._is_summary = options.get("has_summary", False)
        self._is_sealed = "reasoning.encrypted_content" in options.get("included", ())
        self._texts: list[str] = []

    def start(self) -> Iterator[ItemEvent]:
        yield "output_item.added", self._as_output("in_progress")
        if self._is_summary:
            yield "reasoning_summary_part.added", self._at() | {"part": self._part("")}
        else:
            yield "content_part.added", self._at() | {"part": self._part("")}

    def push(self, text: str) -> Iterator[ItemEvent]:
        self._texts.append(text)
        yield f"{self._name}.delta", self._at() | {"delta": text}

    def end(self, status: str) -> Iterator[ItemEvent]:
        text = "".join(self._texts)
        part = "reasoning_summary_part" if self._is_summary else "content_part"
        yield f"{self._name}.done", self._at() | {"text": text}
        yield f"{part}.done", self._at() | {"part": self._part(text)}
        yield "output_item.done", self._as_output(status)

    def item(self, status: str) -> dict[str, Any]:
        text = "".join(self._texts)
        parts = [self._part(text)] if text else []
        item: dict[str, Any] = {
            "id": self._place["item_id"],
            "type": "reasoning",
            "summary": parts if self._is_summary else [],
            "status": status,
        }
        if not self._is_summary:
            item["content"] = parts
        if self._is_sealed:
            item["encrypted_content"] = seal(text)
        return item

    @property
    def _name(self) -> str:
        return "reasoning_summary_text" if self._is_summary else "reasoning_text"

    def _at(self) -> dict[str, Any]:
        return self._place | {"summary_index" if self._is_summary else "content_index": 0}

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "summary_text" if self._is_summary else "reasoning_text", "text": text}


class Message(_Item):
    """The answer."""

    def __init__(self, item_id: str, at: int):
        super().__init__(item_id, at)
        self._texts: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._new_logprobs: list[dict[str, Any]] = []

    def add_logprobs(self, logprobs: Sequence[Logprobs]) -> None:
        """Those of the tokens of the next text."""
        self._new_logprobs += [_logprob(item) for item in logprobs]

    def start(self) -> Iterator[ItemEvent]:
        yield "output_item.added", self._as_output("in_progress")
        yield "content_part.added", self._at() | {"part": self._part()}

    def push(self, text: str) -> Iterator[ItemEvent]:
        new, self._new_logprobs = self._new_logprobs, []
        self._texts.append(text)
        self._logprobs += new
        yield "output_text.delta", self._at() | {"delta": text, "logprobs": new}

    def end(self, status: str) -> Iterator[ItemEvent]:
        text = {"text": "".join(self._texts), "logprobs": self._logprobs}
        yield "output_text.done", self._at() | text
        yield "content_part.done", self._at() | {"part": self._part()}
        yield "output_item.done", self._as_output(status)

    def item(self, status: str) -> dict[str, Any]:
        return {
            "id": self._place["item_id"],
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self._part()] if self._texts else [],
        }

    def _at(self) -> dict[str, Any]:
        return self._place | {"content_index": 0}

    def _part(self) -> dict[str, Any]:
        text = "".join(self._texts)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self._logprobs)}


class Call(_Item):
    """A call of a function. What is sent of its arguments is always JSON."""

    def __init__(
        self, item_id: str, at: int, *, index: int, call_id: str, name: str, namespace: str | None = None
    ):
        super().__init__(item_id, at)
        self.index = index
        self._call = {"call_id": call_id, "name": name} | ({"namespace": namespace} if namespace else {})
        self._text = CallText()

    def start(self) -> Iterator[ItemEvent]:
        yield "output_item.added", self._as_output("in_progress")

    def push(self, text: str) -> Iterator[ItemEvent]:
        if piece := self._text.feed(text):
            yield "function_call_arguments.delta", self._place | {"delta": piece}

    def finish(self, arguments: Mapping[str, Any]) -> Iterator[ItemEvent]:
        """The call is complete."""
        if piece := self._text.finish(arguments):
            yield "function_call_arguments.delta", self._place | {"delta": piece}

    def end(self, status: str) -> Iterator[ItemEvent]:
        arguments = self._text.sent
        named = {"arguments": arguments, "name": self._call["name"]}
        yield "function_call_arguments.done", self._place | named
        yield "output_item.done", self._as_output(status)

    def item(self, status: str) -> dict[str, Any]:
        return {
            "id": self._place["item_id"],
            "type": "function_call",
            "status": status,
            "arguments": self._text.sent,
            **self._call,
        }


def _logprob(item: Logprobs) -> dict[str, Any]:
    return _token(item.token) | {"top_logprobs": [_token(token) for token in item.top]}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.text,
        "bytes": list(token.text.encode("utf-8", "replace")),
        "logprob": token.logprob,
    }
