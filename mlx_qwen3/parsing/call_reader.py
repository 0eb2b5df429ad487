"""Reads the body of a complete call: the name and arguments, or what is wrong with them.

The errors are for the model: it gets them as the result of the call, and can call again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_qwen3.parsing import loose_json
from mlx_qwen3.parsing.call_scanner import (
    ARGUMENT_KEYS,
    CLOSE,
    FUNCTION,
    FUNCTION_END,
    PARAMETER,
    PARAMETER_END,
    quoted_call_end,
)
from mlx_qwen3.parsing.loose_json import LooseJSONError
from mlx_qwen3.parsing.schema_types import Schema, resolve, schema_types

Value = Any

RETRY_JSON = 'Send the call again as one JSON object: {"name": "...", "arguments": {...}}.'
RETRY_XML = "Send the call again, each parameter in its own tags, and close every tag."
_CODE_FENCE = re.compile(r"\s*```\w*\n(.*?)(\n\s*```)?\s*$", re.DOTALL)
_CALL_KEYS = {"name", "id", "type", "index"}
_NAMED_JSON = re.compile(r"\s*<function>([^<>]+)</function>\s*(\{.*)", re.DOTALL)


@dataclass(frozen=True)
class OfferedTools:
    """The tools that the model may call.

    schemas: name -> JSON schema of the parameters. None: any name is accepted.
    """

    schemas: Mapping[str, Schema] | None = None

    def has(self, name: str) -> bool:
        """Whether the model may call `name`."""
        return self.schemas is None or name in self.schemas

    def properties(self, name: str) -> Mapping[str, Any] | None:
        """The parameters of the tool `name`; None if they are not known."""
        properties = resolve(self.schema(name), self.schema(name)).get("properties")
        return properties if isinstance(properties, Mapping) else None

    def schema(self, name: str) -> Schema:
        """The schema of the parameters of the tool `name`; empty if it is not known."""
        return (self.schemas or {}).get(name, {})

    def refusal(self, name: str) -> str:
        """The error of a call of a tool that was not offered."""
        if not self.schemas:
            return f'There is no tool "{name}": no tools are available. Answer without them.'
        return f'There is no tool "{name}". The tools are: {", ".join(sorted(self.schemas))}.'


@dataclass(frozen=True)
class ParsedCall:
    """One call: its arguments, or the error that says why they cannot be used."""

    name: str
    arguments: dict[str, Any] | None
    error: str | None = None


class CallError(ValueError):
    """A call that cannot be used. name: the name of its tool; empty if not known."""

    def __init__(self, message: str, name: str = ""):
        super().__init__(message)
        self.name = name


def read_calls(body: str, is_closed: bool, tools: OfferedTools) -> list[ParsedCall]:
    """The calls in one body, usually one. is_closed: the body was ended by its closing tag."""
    body = body.strip().removesuffix(CLOSE)
    if fenced := _CODE_FENCE.match(body):
        body = fenced[1]
    try:
        if named := _NAMED_JSON.match(body):
            arguments, _ = loose_json.read(named[2], is_whole=is_closed)
            return [_parsed(named[1].strip(), arguments, tools)]
        read = _read_xml if body.startswith("<") else _read_json
        return read(body, is_closed, tools)
    except CallError as error:
        return [ParsedCall(error.name, None, str(error))]
    except LooseJSONError as error:
        return [ParsedCall("", None, f"The tool call is not valid JSON: {error}. {RETRY_JSON}")]


def _read_json(body: str, is_closed: bool, tools: OfferedTools) -> list[ParsedCall]:
    calls: list[ParsedCall] = []
    position = 0
    while True:
        try:
            value, position = loose_json.read(body, position, is_whole=is_closed)
        except LooseJSONError as error:
            name = _misspelled_name(body, position)
            text = f"The tool call is not valid JSON: {error}. {RETRY_JSON}"
            return [*calls, ParsedCall(name, None, text)]
        calls += [_read_object(item, tools) for item in (value if isinstance(value, list) else [value])]
        position = len(body) - len(body[position:].lstrip("}], \t\r\n"))
        if body[position : position + 1] != "{":
            return calls or [ParsedCall("", None, f"The tool call is empty. {RETRY_JSON}")]


def _misspelled_name(body: str, start: int) -> str:
    match = re.compile(r"""\s*\{\s*["']?name["']?\s*:\s*["']([^"'\n]*)["']""").match(body, start)
    return match[1].strip() if match else ""


def _read_object(value: Value, tools: OfferedTools) -> ParsedCall:
    try:
        if isinstance(value, dict) and isinstance(value.get("function"), dict):
            value = value["function"]
        if not isinstance(value, dict):
            raise CallError(f"The tool call is not a JSON object. {RETRY_JSON}")
        name = value.get("name")
        if not isinstance(name, str) or not name.strip():
            raise CallError(f'The tool call has no "name". {RETRY_JSON}')
        return _parsed(name.strip(), _arguments(value, name.strip(), tools), tools)
    except CallError as error:
        return ParsedCall(error.name, None, str(error))


def _arguments(call: dict[str, Any], name: str, tools: OfferedTools) -> Value:
    """The arguments of a call. A call may have them beside its name if the schema lists all of them."""
    keys = [key for key in ARGUMENT_KEYS if key in call]
    if len(keys) > 1:
        raise CallError(f'The arguments of "{name}" are given twice. {RETRY_JSON}', name)
    if keys:
        return call[keys[0]]
    loose = {key: value for key, value in call.items() if key not in _CALL_KEYS}
    if loose and not set(loose) <= set(tools.properties(name) or ()):
        raise CallError(f'The call of "{name}" has no "arguments". {RETRY_JSON}', name)
    return loose


def _parsed(name: str, arguments: Value, tools: OfferedTools) -> ParsedCall:
    if not tools.has(name):
        return ParsedCall(name, None, tools.refusal(name))
    if isinstance(arguments, str):
        arguments = _parse_string(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return ParsedCall(name, None, f'The arguments of "{name}" are not a JSON object. {RETRY_JSON}')
    return ParsedCall(name, arguments)


def _parse_string(arguments: str) -> Value:
    """The value of arguments that are a string of JSON; the string itself if it is not JSON."""
    if not arguments.strip():
        return {}
    try:
        value, end = loose_json.read(arguments)
    except LooseJSONError:
        return arguments
    if isinstance(value, str) and not value.strip():  # encoded twice: "\"\""
        return {}
    return arguments if arguments[end:].strip() else value


def _read_xml(body: str, is_closed: bool, tools: OfferedTools) -> list[ParsedCall]:
    match = FUNCTION.match(body)
    if not match:
        raise CallError("The tool call has no function name. " + RETRY_XML)
    name, rest = match[1].strip(), body[match.end() :]
    if rest.lstrip().startswith("{"):
        return [_parsed(name, loose_json.read(rest, is_whole=is_closed)[0], tools)]
    if not tools.has(name):
        raise CallError(tools.refusal(name), name)
    properties = tools.properties(name) or {}
    parameters, end = _parameters(rest, name, is_closed)
    root = tools.schema(name)
    if not (is_closed or FUNCTION_END in rest[end:]):
        raise CallError(f'The call of "{name}" was cut off. {RETRY_XML}', name)
    arguments = {key: _typed(text, properties.get(key), root) for key, text in parameters.items()}
    return [ParsedCall(name, arguments)]


def _parameters(text: str, name: str, is_closed: bool) -> tuple[dict[str, str], int]:
    """The name and value of each parameter, as text, and the position where the last value ends.

    Raises CallError if a parameter is given twice or was cut off, or if text stands outside the parameters.
    """
    parameters: dict[str, str] = {}
    position = 0
    while match := PARAMETER.search(text, position):
        _refuse_text_outside(text[position : match.start()], name)
        end = _value_end(text, match.end(), is_closed)
        if end is None:
            raise CallError(f'The call of "{name}" was cut off inside "{match[1]}". {RETRY_XML}', name)
        value, position = text[match.end() : end].removeprefix("\n").removesuffix("\n"), end
        if match[1].strip() in parameters:
            raise CallError(f'The parameter "{match[1]}" of "{name}" is given twice. {RETRY_XML}', name)
        parameters[match[1].strip()] = value
    _refuse_text_outside(text[position:], name)
    return parameters, position


def _refuse_text_outside(text: str, name: str) -> None:
    """Raise CallError for text between parameters: it may be a parameter whose tag is misspelled."""
    for tag in (PARAMETER_END, FUNCTION_END, CLOSE):
        text = text.replace(tag, "")
    if text := text.strip():
        raise CallError(
            f'The call of "{name}" has text outside its parameters: {text[:40]!r}. {RETRY_XML}', name
        )


_XML_TAG = re.compile(
    f"{PARAMETER_END}|{FUNCTION_END}|{CLOSE}|(?<=\n){PARAMETER.pattern}"
    f"|<parameter(?:=|\\s+name=)[^<>\n]+>|{FUNCTION.pattern}"
)


def _value_end(text: str, start: int, is_closed: bool) -> int | None:
    """The position where the value at `start` ends; None if it was cut off.

    The value ends at its closing tag. If that is missing, it ends at the next parameter, or at a
    `</function>` that ends a closed call.
    """
    quoted_end = ""  # the tag that ends the call quoted in the value
    for match in _XML_TAG.finditer(text, start):
        tag = match[0]
        if quoted_end:
            quoted_end = "" if tag == quoted_end else quoted_end
        elif tag.startswith("<function"):
            quoted_end = quoted_call_end(text[start : match.start()])
        elif tag == FUNCTION_END:
            if is_closed and not text[match.end() :].strip():
                return match.start()
        elif tag != CLOSE:
            return match.start()
    return None


def _typed(text: str, schema: Any, root: Schema) -> Value:
    """A value as the type that its schema names. Text that does not fit stays text: the tool refuses it."""
    types = schema_types(schema, root)
    if not types or ("string" in types and not ("null" in types and text.strip() in ("null", "None"))):
        return _enum_value(text, schema, root)
    try:
        value, end = loose_json.read(text)
    except LooseJSONError:
        return text
    return value if not text[end:].strip() else text


def _enum_value(text: str, schema: Any, root: Schema) -> Value:
    """`text`, or the value of an enum that is not a string and is spelled like it."""
    values = _list(resolve(schema, root).get("enum"))
    if text in values or not any(not isinstance(value, str) for value in values):
        return text
    try:
        value, end = loose_json.read(text)
    except LooseJSONError:
        return text
    is_member = any(value == item and type(value) is type(item) for item in values)
    return value if is_member and not text[end:].strip() else text


def _list(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty list: the schema of an MCP server may hold anything."""
    return value if isinstance(value, list) else []
