"""Anthropic's messages and system blocks as messages in OpenAI's form, which the chat template reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mlx_qwen3.server.errors import bad_request
from mlx_qwen3.server.fields import Fields

# Claude Code's first system block. Its value differs between requests, and would be the end of what they have
# in common.
_BILLING_HEADER = re.compile(r"\Ax-anthropic-billing-header:[^\n]*\n*")
_UNSEEN = {
    "image": "[an image, which this model cannot see]",
    "document": "[a document, which this model cannot open]",
}
"""What stands in a tool's result for what is not text. An error would end the conversation for good."""


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """The system blocks and messages of a request."""
    messages = list(_system(fields))
    listed = fields.list("messages")
    if not listed:
        raise fields.error("messages", "must be a list of at least one message")
    for index, value in enumerate(listed):
        messages += _message(Fields(value, fields.where(f"messages[{index}]")))
    return messages


def _system(fields: Fields) -> Iterator[dict[str, Any]]:
    texts = [_BILLING_HEADER.sub("", text) for text in _texts(fields, "system")]
    text = "\n".join(text for text in texts if text)
    if text:
        yield {"role": "system", "content": text}


def _texts(fields: Fields, name: str) -> list[str]:
    """A field that is a text or a list of text blocks."""
    value = fields.value(name)
    if value is None or isinstance(value, str):
        return [value] if value else []
    return [_text(block) for block in _blocks(fields, name)]


def _blocks(fields: Fields, name: str) -> Iterator[Fields]:
    for index, value in enumerate(fields.list(name, [])):
        yield Fields(value, fields.where(f"{name}[{index}]"))


def _text(block: Fields) -> str:
    """The text of a text block, which is the only kind allowed here."""
    block.choice("type", ["text"])
    text: str = block.required_text("text")
    block.skip("cache_control", "citations")
    block.finish()
    return text


def _message(fields: Fields) -> Iterable[dict[str, Any]]:
    role = fields.choice("role", ["user", "assistant", "system"])
    if role is None:
        raise fields.error("role", "is missing")
    content = fields.value("content")
    if content is None:
        raise fields.error("content", "is missing")
    fields.skip("cache_control")
    messages: Iterable[dict[str, Any]]
    if isinstance(content, str):
        messages = [{"role": role, "content": content}]
    elif role == "system":
        messages = [{"role": role, "content": "\n".join(_texts(fields, "content"))}]
    elif role == "assistant":
        messages = [_assistant(_blocks(fields, "content"))]
    else:
        messages = _user(_blocks(fields, "content"))
    fields.finish()
    return messages


def _user(blocks: Iterable[Fields]) -> list[dict[str, Any]]:
    """Results of tools become messages of their own; the texts between them, messages of the user."""
    messages: list[dict[str, Any]] = []
    texts: list[str] = []

    def end_text() -> None:
        if texts:
            messages.append({"role": "user", "content": "\n".join(texts)})
            texts.clear()

    for block in blocks:
        kind = block.text("type")
        if kind == "tool_result":
            end_text()
            messages.append(_tool_result(block))
        elif kind == "text":
            texts.append(_text(block))
        else:
            raise _unreadable(block, kind)
    end_text()
    return messages or [{"role": "user", "content": ""}]


def _tool_result(block: Fields) -> dict[str, Any]:
    call = block.required_text("tool_use_id")
    value = block.value("content", "")
    texts = [value] if isinstance(value, str) else [_result_part(part) for part in _blocks(block, "content")]
    text = "\n".join(texts)
    if block.flag("is_error", False) and not text.lower().startswith(("error", "<tool_use_error")):
        text = f"Error: {text}"
    block.only("toolset_name")
    block.skip("cache_control")
    block.finish()
    return {"role": "tool", "tool_call_id": call, "content": text}


def _result_part(part: Fields) -> str:
    kind = part.text("type")
    return _UNSEEN[kind] if kind in _UNSEEN else _text(part)


def _assistant(blocks: Iterable[Fields]) -> dict[str, Any]:
    thinking: list[str] = []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.text("type")
        if kind == "text":
            texts.append(_text(block))
        elif kind == "thinking":
            thinking.append(block.text("thinking", ""))
            block.skip("signature", "cache_control")
            block.finish()
        elif kind == "tool_use":
            calls.append(_tool_use(block))
        elif kind != "redacted_thinking":  # thinking of another model, which only its maker can read
            raise _unreadable(block, kind)
    message: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    if any(thinking):
        message["reasoning_content"] = "\n".join(thinking)
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_use(block: Fields) -> dict[str, Any]:
    call = {
        "id": block.required_text("id"),
        "type": "function",
        "function": {"name": block.required_text("name"), "arguments": block.mapping("input", {})},
    }
    caller: Mapping[str, Any] = block.mapping("caller", {})
    if caller.get("type", "direct") != "direct":
        raise block.error("caller", "must be direct: this server runs no code that calls tools")
    block.only("toolset_name")
    block.skip("cache_control")
    block.finish()
    return call


def _unreadable(block: Fields, kind: Any) -> Exception:
    where = block.where("type")
    if not isinstance(kind, str):
        return bad_request(f"{where} must say what kind of block this is", where)
    return bad_request(f"{where} {kind[:40]!r} cannot be read here: this model reads text", where)
