"""Checks the messages of a conversation and brings them into the form that chat templates read.

Messages are plain dicts:

    {"role": "system" | "user" | "tool", "content": str or [{"type": "text", "text": str}, ...]}
    {"role": "assistant", "content": ..., "reasoning_content": str, "tool_calls": [call, ...]}
    call: {"name": str, "arguments": dict or JSON text}, or that under "function" as in OpenAI's format.
          Arguments that are missing, None or empty text are no arguments.

Anything else raises MessageError with the index of the message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_qwen3.errors import MessageError

Message = Mapping[str, Any]

_ROLES = ("system", "user", "assistant", "tool")
# The first is Qwen3's own name; other servers use the others.
_THINKING_KEYS = ("reasoning_content", "thinking", "reasoning")
_SURROGATE_ESCAPE = re.compile(r"\\ud[89a-f]")  # as json.dumps writes it


def without_surrogates(value: Any) -> Any:
    """A string, or a JSON value, with U+FFFD for halves of surrogate pairs, which have no UTF-8.

    They come from bytes that are not UTF-8: in file names, in arguments, typed at a terminal.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(item) for item in value]
    return value


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Copies of `messages` in the form that templates read.

    Content becomes a string, keys with the value None are removed, thinking becomes `reasoning_content`, and
    halves of surrogate pairs become U+FFFD. Raises MessageError with the index of a message that is not
    valid.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise MessageError("a conversation is a list of at least one message")
    return [_check_message(message, f"message {index}") for index, message in enumerate(messages)]


def check_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Copies of the JSON schemas of the tools. Raises MessageError with the index of one that is not JSON."""
    if not isinstance(tools or [], list | tuple):
        raise MessageError("tools are a list of JSON schemas")
    return [_plain_dict(tool, f"tool {index}") for index, tool in enumerate(tools or [])]


def split_thinking(message: dict[str, Any]) -> dict[str, Any]:
    """A message of the assistant with its inline `<think>` block moved to `reasoning_content`.

    It is cut as Qwen3's templates cut it: thinking ends at the first `</think>`, and the answer follows the
    last one. A message that has `reasoning_content`, or no block, stays as it is.
    """
    content = message["content"]
    if message["role"] != "assistant" or "reasoning_content" in message or "</think>" not in content:
        return message
    thinking = content.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
    answer = content.split("</think>")[-1].lstrip("\n")
    return {**message, "content": answer, "reasoning_content": thinking}


def parse_arguments(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the arguments of every call as a dict, for templates that write them one by one.

    Raises MessageError with the index of a message whose arguments are not the text of a JSON object.
    """
    return [_parse_calls(message, f"message {index}") for index, message in enumerate(messages)]


def _check_message(value: Any, where: str) -> dict[str, Any]:
    message = {key: item for key, item in _plain_dict(value, where).items() if item is not None}
    role = message.get("role")
    if role == "developer":  # another name for it, which Qwen3's templates do not know
        role = message["role"] = "system"
    if role not in _ROLES:
        problem = f"has the unknown role {role!r:.40}" if "role" in message else "has no role"
        raise MessageError(f"{where} {problem}: use one of {', '.join(_ROLES)}")
    if role == "assistant":
        _check_calls(message, where)
        message |= _thinking(message, where)
    return message | {"content": _check_content(message, f"{where} ({role})")}


def _plain_dict(value: Any, where: str) -> dict[str, Any]:
    """A deep copy of `value` made of JSON's types alone, so that a template gets no other object.

    Halves of surrogate pairs become U+FFFD.
    """
    if not isinstance(value, Mapping):
        raise MessageError(f"{where} is not a dict but {type(value).__name__}")
    try:
        text = json.dumps(dict(value))
        copy: dict[str, Any] = json.loads(text)
        if _SURROGATE_ESCAPE.search(text):
            copy = without_surrogates(copy)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"{where} is not plain JSON data: {error}") from error
    return copy


def _check_content(message: dict[str, Any], where: str) -> str:
    content = message.get("content")
    if content is None and (message.get("tool_calls") or "reasoning_content" in message):
        return ""
    if isinstance(content, list | tuple):
        content = "".join(_part_text(part, where) for part in content)
    if not isinstance(content, str):
        problem = "no content" if content is None else f"content of type {type(content).__name__}"
        raise MessageError(f"{where} has {problem}: give a string, or a list of text parts")
    return content


def _part_text(part: Any, where: str) -> str:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else None
    if not isinstance(text, str):
        raise MessageError(f"{where} has a content part that is not text: only text parts can be read")
    return text


def _thinking(message: dict[str, Any], where: str) -> dict[str, Any]:
    """The thinking of a message under Qwen3's name for it; empty if it has none."""
    thinking = next((message[key] for key in _THINKING_KEYS if key in message), None)
    if thinking is None:
        return {}
    if not isinstance(thinking, str):
        raise MessageError(f"{where} has thinking of type {type(thinking).__name__}: give a string")
    return {"reasoning_content": thinking}


def _check_calls(message: dict[str, Any], where: str) -> None:
    """Check the tool calls, and write arguments that are missing, None or empty text as {}."""
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list | tuple):
        raise MessageError(f"{where} has tool_calls that are not a list")
    for index, call in enumerate(calls):
        function = (call.get("function") or call) if isinstance(call, dict) else {}
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise MessageError(f"{where} has a tool call without a name (call {index})")
        arguments = function.get("arguments")
        if arguments is None or (isinstance(arguments, str) and arguments.strip() in ("", "null")):
            function["arguments"] = {}
        elif not isinstance(arguments, str | dict):
            raise MessageError(
                f"{where} has a tool call with wrong arguments (call {index}): give a dict or JSON text"
            )


def _parse_calls(message: dict[str, Any], where: str) -> dict[str, Any]:
    if message["role"] != "assistant" or "tool_calls" not in message:
        return message
    calls = [_parse_call(call, f"{where} (call {index})") for index, call in enumerate(message["tool_calls"])]
    return {**message, "tool_calls": calls}


def _parse_call(call: dict[str, Any], where: str) -> dict[str, Any]:
    if call.get("function"):
        return {**call, "function": _parse_call(call["function"], where)}
    if isinstance(call["arguments"], dict):
        return call
    try:
        arguments = json.loads(call["arguments"])
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise MessageError(f"{where} has arguments that are not a JSON object, as this template needs them")
    return {**call, "arguments": arguments}
