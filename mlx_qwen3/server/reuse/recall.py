"""Recall: what clients leave out or spell anew when they send a conversation back.

Qwen3 is trained to see the thinking that led to a call of a tool as long as the turn lasts, and most clients
do not send it back. Those of Anthropic's API also parse the arguments and spell them again. Both would be
another prompt than the model wrote, and void its KV cache from there on. The server knows the calls by their
ids, which it made. And some clients list their tools, or the keys of their schemas, in another order each
time: the order that came first is kept.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

MOST_CALLS = 20_000
MOST_TOOL_LISTS = 64
MOST_CHARACTERS = 64 * 2**20


@dataclass(frozen=True)
class KnownCall:
    """thinking: what came before the call. arguments: as the model spelled them, if that is JSON."""

    thinking: str
    arguments: str | None

    @property
    def size(self) -> int:
        return len(self.thinking) + len(self.arguments or "")


class Recall:
    """The calls that models made lately, by key. For any thread."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, KnownCall] = OrderedDict()
        self._size = 0
        self._tools: OrderedDict[str, Sequence[Mapping[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, key: str, scope: str, call: KnownCall) -> None:
        """Remember a call. scope: whose it is."""
        with self._lock:
            self._calls[f"{scope}/{key}"] = call
            self._size += call.size
            while len(self._calls) > MOST_CALLS or self._size > MOST_CHARACTERS:
                _, oldest = self._calls.popitem(last=False)
                self._size -= oldest.size

    def same_tools(self, tools: Sequence[Mapping[str, Any]], scope: str) -> Sequence[Mapping[str, Any]]:
        """`tools`, in the order and spelling in which they came first."""
        if not tools:
            return tools
        spelled = sorted(json.dumps(tool, sort_keys=True) for tool in tools)
        key = blake2b(json.dumps([scope, spelled]).encode(), digest_size=16).hexdigest()
        with self._lock:
            known = self._tools.setdefault(key, tools)
            self._tools.move_to_end(key)
            while len(self._tools) > MOST_TOOL_LISTS:
                self._tools.popitem(last=False)
            return known

    def restore(self, messages: Sequence[Mapping[str, Any]], scope: str) -> list[dict[str, Any]]:
        """`messages` with the thinking that led to calls, and with arguments as the model spelled them."""
        return [self._restore(dict(message), scope) for message in messages]

    def _restore(self, message: dict[str, Any], scope: str) -> dict[str, Any]:
        calls = message.get("tool_calls")
        if message.get("role") != "assistant" or not isinstance(calls, list):
            return message
        known = [self._find(call, scope) for call in calls]
        has_thinking = any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
        first = known[0] if known else None
        if first is not None and first.thinking and not has_thinking:
            message["reasoning_content"] = first.thinking
        message["tool_calls"] = [
            call if found is None else _respelled(call, found)
            for call, found in zip(calls, known, strict=True)
        ]
        return message

    def _find(self, call: Any, scope: str) -> KnownCall | None:
        id_ = call.get("id") if isinstance(call, dict) else None
        if not isinstance(id_, str):
            return None
        with self._lock:
            return self._calls.get(f"{scope}/{id_.rsplit('_', 1)[-1]}")


def _respelled(call: dict[str, Any], known: KnownCall) -> dict[str, Any]:
    """`call` with the arguments as the model spelled them, if they say the same."""
    function = call.get("function")
    if known.arguments is None or not isinstance(function, dict):
        return call
    try:
        given = function.get("arguments")
        given = json.loads(given) if isinstance(given, str) else given
        if given != json.loads(known.arguments):
            return call
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": known.arguments}}
