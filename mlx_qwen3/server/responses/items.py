"""The items of a Responses conversation as messages in OpenAI's chat form."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mlx_qwen3.server.errors import bad_request
from mlx_qwen3.server.fields import Fields

Item = Mapping[str, Any]
Lookup = Callable[[str], Item | None]
"""Finds an item of a stored response by its id."""

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXT_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_UNSEEN = {
    "input_image": "[an image, which this model cannot see]",
    "input_file": "[a file, which this model cannot open]",
}
"""What stands in a tool's output for what is not text. An error would end the conversation for good."""
_SEALED = "mlx-qwen3:"


def as_items(value: Any) -> list[Any]:
    """The field `input` as a list of items."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if isinstance(value, list):
        return value
    raise bad_request("input must be a string or a list of items", "input")


def read_items(items: Iterable[Any], lookup: Lookup, path: str = "input") -> list[dict[str, Any]]:
    """The messages of a conversation. What the assistant thought, said and called in a row is one message."""
    messages: list[dict[str, Any]] = []
    for index, value in enumerate(items):
        where = f"{path}[{index}]"
        _add(messages, Fields(_resolved(value, lookup, where), where))
    return [{"content": "", **message} if message["role"] == "assistant" else message for message in messages]


def _resolved(value: Any, lookup: Lookup, where: str) -> Any:
    """The item itself, where a client only names it."""
    if not (isinstance(value, Mapping) and value.get("type") == "item_reference"):
        return value
    name = value.get("id")
    item = lookup(name) if isinstance(name, str) else None
    if item is None:
        raise bad_request(
            f"{where}.id {name!r:.80} is no item of a stored response", f"{where}.id", "not_found"
        )
    return item


def _add(messages: list[dict[str, Any]], item: Fields) -> None:
    kind = item.text("type", "message")
    for name in ("id", "status"):  # which are given back where the conversation is listed
        item.text(name)
    if kind == "message":
        _add_message(messages, item)
    elif kind == "reasoning":
        _turn(messages, before="content")["reasoning_content"] = _reasoning(item)
    elif kind == "function_call":
        _turn(messages).setdefault("tool_calls", []).append(_call(item))
    elif kind == "function_call_output":
        messages.append(
            {"role": "tool", "tool_call_id": item.required_text("call_id"), "content": _output(item)}
        )
        item.skip("name", "namespace", "caller")
    else:
        raise bad_request(
            f"{item.where('type')} {kind!r:.60} cannot be read here", item.where("type"), "unsupported_item"
        )
    item.finish()


def _turn(messages: list[dict[str, Any]], before: str | None = None) -> dict[str, Any]:
    """The assistant's message that an item belongs to. before: a key that the item must come before."""
    latest = messages[-1] if messages else {}
    if latest.get("role") != "assistant" or (before and (before in latest or "tool_calls" in latest)):
        messages.append({"role": "assistant"})
    return messages[-1]


def _add_message(messages: list[dict[str, Any]], item: Fields) -> None:
    role = item.choice("role", list(_ROLES))
    if role is None:
        raise item.error("role", "is missing")
    text = _content(item)
    item.skip("phase")
    if role == "assistant":
        _turn(messages, before="content")["content"] = text
    else:
        messages.append({"role": _ROLES[role], "content": text})


def _content(item: Fields) -> str:
    value = item.value("content")
    if value is None:
        raise item.error("content", "is missing")
    if isinstance(value, str):
        return value
    return "\n".join(
        _part(Fields(part, item.where(f"content[{index}]")))
        for index, part in enumerate(item.list("content", []))
    )


def _part(part: Fields) -> str:
    kind = part.text("type", "text")
    if kind not in _TEXT_PARTS:
        where = part.where("type")
        raise bad_request(f"{where} {kind!r:.60} cannot be read here: this model reads text", where)
    text = part.required_text(_TEXT_PARTS[kind])
    for name in ("annotations", "logprobs"):
        part.list(name)
    part.skip("prompt_cache_breakpoint")
    part.finish()
    return text


def _call(item: Fields) -> dict[str, Any]:
    item.skip("namespace", "caller", "async")
    function = {"name": item.required_text("name"), "arguments": item.text("arguments", "{}")}
    return {"id": item.required_text("call_id"), "type": "function", "function": function}


def _output(item: Fields) -> str:
    value = item.value("output", "")
    if isinstance(value, str):
        return value
    parts = [Fields(part, item.where(f"output[{index}]")) for index, part in enumerate(item.list("output"))]
    return "\n".join(_UNSEEN.get(part.text("type", ""), "") or _part(part) for part in parts)


def _reasoning(item: Fields) -> str:
    """The thinking of a reasoning item: its content, else what was sealed, else the summary."""
    content, summary = _texts(item, "content"), _texts(item, "summary")
    sealed = unseal(item.text("encrypted_content", ""))
    return "\n".join(content or ([sealed] if sealed else summary))


def _texts(item: Fields, name: str) -> list[str]:
    parts = [Fields(part, item.where(f"{name}[{index}]")) for index, part in enumerate(item.list(name, []))]
    return [part.text("text", "") for part in parts]


def seal(thinking: str) -> str:
    """Thinking as `encrypted_content`. It is not secret: it comes back in the next request, that is all."""
    return _SEALED + base64.b64encode(thinking.encode("utf-8", "replace")).decode()


def unseal(sealed: str) -> str:
    """The thinking in `encrypted_content`; empty for another server's."""
    if not sealed.startswith(_SEALED):
        return ""
    try:
        return base64.b64decode(sealed[len(_SEALED) :], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
