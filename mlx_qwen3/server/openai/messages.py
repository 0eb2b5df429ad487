"""Reads the messages and tools of OpenAI's chat API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mlx_qwen3.server.errors import bad_request
from mlx_qwen3.server.fields import Fields

TOOL_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
# Of a message, what clients add for themselves, or send back because an answer had it.
BOOKKEEPING = (
    *("id", "type", "index", "annotations", "parsed", "provider_specific_fields", "cache_control"),
    *("reasoning_details", "created", "status", "metadata"),
)
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


def read_messages(values: list[Any]) -> tuple[list[dict[str, Any]], bool]:
    """The messages in the engine's form, and whether the last one is to be continued (`prefix`)."""
    if not values:
        raise bad_request("messages must not be empty", "messages")
    messages, is_continued = [], False
    for number, value in enumerate(values):
        message, is_prefix = _message(Fields(value, f"messages[{number}]"))
        messages.append(message)
        is_continued = is_prefix and number == len(values) - 1
    return messages, is_continued


def _message(fields: Fields) -> tuple[dict[str, Any], bool]:
    role = fields.choice("role", ("system", "developer", "user", "assistant", "tool", "function"))
    if role is None:
        raise bad_request(f"{fields.where('role')} is missing", fields.where("role"))
    message: dict[str, Any] = {"role": {"developer": "system", "function": "tool"}.get(role, role)}
    content = _content(fields)
    fields.skip(*BOOKKEEPING)
    fields.text("name")  # the template has no place for it
    is_prefix = False
    if role == "assistant":
        is_prefix = bool(fields.flag("prefix", False) or fields.flag("partial", False))
        message |= _assistant(fields)
        refusal = fields.text("refusal")
        message["content"] = content if content is not None else refusal or ""
    else:
        if role == "tool":
            message["tool_call_id"] = fields.text("tool_call_id", "")
        if content is None and role != "tool":
            raise bad_request(f"{fields.where('content')} is missing", fields.where("content"))
        message["content"] = content or ""
    fields.finish()
    return message, is_prefix


def _content(fields: Fields) -> str | None:
    """The text of a message; None if it has none."""
    value = fields.value("content")
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise fields.error("content", "must be a string or a list of parts")
    texts = []
    for number, part in enumerate(value):
        where = f"{fields.where('content')}[{number}]"
        if isinstance(part, str):
            texts.append(part)
            continue
        inside = Fields(part, where)
        kind = inside.text("type", "text")
        if kind not in TEXT_PARTS:
            raise bad_request(f"{where} is of type {kind!r:.40}: the model reads text alone", where)
        inside.skip("cache_control", "annotations", "logprobs", "prompt_cache_breakpoint")
        text = inside.text("refusal") if kind == "refusal" else inside.text("text")
        if text is None:
            raise bad_request(f"{where}.text is missing", f"{where}.text")
        inside.finish()
        texts.append(text)
    return "".join(texts)


def _assistant(fields: Fields) -> dict[str, Any]:
    """Thinking and calls of an assistant's message."""
    fields.only("audio")
    thinking = [fields.text(name) for name in ("reasoning_content", "reasoning", "thinking")]
    message: dict[str, Any] = {}
    if any(thinking):
        message["reasoning_content"] = next(text for text in thinking if text)
    calls = [_call(Fields(call, f"{fields.where('tool_calls')}[{number}]"))
             for number, call in enumerate(fields.list("tool_calls", []))]  # fmt: skip
    if (legacy := fields.object("function_call")) is not None:
        calls.append({"type": "function", "function": _function(legacy)})
        legacy.finish()
    return message | ({"tool_calls": calls} if calls else {})


def _call(fields: Fields) -> dict[str, Any]:
    fields.only("type", "function")
    fields.skip("index", "extra_content", "provider_specific_fields")
    function = fields.object("function")
    if function is None:
        raise bad_request(f"{fields.where('function')} is missing", fields.where("function"))
    call = {"id": fields.text("id", ""), "type": "function", "function": _function(function)}
    function.finish()
    fields.finish()
    return call


def _function(fields: Fields) -> dict[str, Any]:
    name = fields.text("name")
    if not name:
        raise bad_request(f"{fields.where('name')} is missing", fields.where("name"))
    arguments = fields.value("arguments", "{}")
    if not isinstance(arguments, str | dict):
        raise fields.error("arguments", "must be the text of a JSON object")
    return {"name": name, "arguments": arguments or "{}"}


def read_tools(values: list[Any]) -> list[dict[str, Any]]:
    """The tools in the form of the template, keys in its order."""
    tools, names = [], set()
    for number, value in enumerate(values):
        fields = Fields(value, f"tools[{number}]")
        kind = fields.text("type", "function")
        if kind != "function":
            raise bad_request(
                f"{fields.where('type')}: tools of type {kind!r:.40} are not supported", fields.where("type")
            )
        function = fields.object("function")
        if function is None:
            raise bad_request(f"{fields.where('function')} is missing", fields.where("function"))
        fields.skip("cache_control")
        fields.finish()
        tool = read_function(function)
        if tool["name"] in names:
            raise bad_request(
                f"{function.where('name')}: there are two tools {tool['name']}", function.where("name")
            )
        names.add(tool["name"])
        tools.append({"type": "function", "function": tool})
    return tools


def read_function(fields: Fields) -> dict[str, Any]:
    """The name, description and parameters of a tool."""
    name = fields.text("name")
    if not name or not TOOL_NAME.fullmatch(name):
        raise fields.error("name", "must be a name of letters, digits, _ and -")
    tool: dict[str, Any] = {"name": name}
    if (description := fields.text("description")) is not None:
        tool["description"] = description
    parameters = fields.mapping("parameters")
    tool["parameters"] = {"type": "object", "properties": {}} if parameters is None else parameters
    fields.flag("strict")  # calls are held to their schema in any case
    fields.finish()
    return tool


def read_tool_choice(fields: Fields) -> tuple[str, str | None]:
    """`tool_choice` as (auto, none or required; the only tool that may be called)."""
    value = fields.value("tool_choice")
    where = fields.where("tool_choice")
    if value is None or isinstance(value, str):
        if value not in (None, "auto", "none", "required"):
            raise bad_request(f"{where} must be auto, none, required or a function, not {value!r:.40}", where)
        return value or "auto", None
    choice = Fields(value, where)
    if choice.text("type") != "function":
        raise bad_request(f"{where}.type must be function", f"{where}.type")
    function = choice.object("function")
    name = function.text("name") if function is not None else choice.text("name")
    if not name:
        raise bad_request(f"{where} names no function", where)
    for part in (function, choice):
        if part is not None:
            part.finish()
    return "required", name


def read_schema(fields: Fields) -> Mapping[str, Any] | None:
    """The schema of `response_format`; None for text."""
    form = fields.object("response_format")
    if form is None:
        return None
    kind = form.choice("type", ("text", "json_object", "json_schema"), "text")
    schema: Any = None
    if kind == "json_object":
        schema = form.mapping("schema", {"type": "object"})
    elif kind == "json_schema":
        inside = form.object("json_schema")
        if inside is None:
            raise bad_request(f"{form.where('json_schema')} is missing", form.where("json_schema"))
        inside.text("name")
        inside.text("description")
        inside.flag("strict")  # the answer is held to its schema in any case
        schema = inside.mapping("schema", {"type": "object"})
        inside.finish()
    form.finish()
    _refuse_cycles(schema)
    return schema  # type: ignore[no-any-return]


def _refuse_cycles(schema: Any) -> None:
    try:
        json.dumps(schema)
    except RecursionError:
        raise bad_request("response_format is nested too deeply", "response_format") from None
