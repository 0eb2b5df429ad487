"""Reads the body of a complete call: its name and arguments, or what is wrong with them.

Errors are written for the model, which gets them as the call's result and may try again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.parsing import loose_json
from mlx_qwen3.parsing.call_scanner import (
    ARGUMENT_KEYS,
    CLOSE,
    FUNCTION,
    FUNCTION_END,
    PARAMETER,
    PARAMETER_END,
    quoted_until,
)
from mlx_qwen3.parsing.loose_json import LooseJSONError

Schema = Mapping[str, Any]
Value = Any

HOW = 'Send the call again as one JSON object: {"name": "...", "arguments": {...}}.'
HOW_XML = "Send the call again, each parameter in its own tags, and close every tag."
_CODE_FENCE = re.compile(r"\s*```\w*\n(.*?)(\n\s*```)?\s*$", re.DOTALL)
_CALL_KEYS = {"name", "id", "type", "index"}
_NAMED_JSON = re.compile(r"\s*<function>([^<>]+)</function>\s*(\{.*)", re.DOTALL)


@dataclass(frozen=True)
class Offer:
    """The tools the model may call. names: None if any name will do. schemas: those that are known."""

    names: frozenset[str] | None = None
    schemas: Mapping[str, Schema] = field(default_factory=dict)

    def properties(self, name: str) -> Mapping[str, Any] | None:
        """The parameters of tool `name`, None if they are not known."""
        properties = self.schemas[name].get("properties") if name in self.schemas else None
        return properties if isinstance(properties, Mapping) else None


@dataclass(frozen=True)
class Reading:
    """One call as read. arguments is None exactly when error is not."""

    name: str
    arguments: dict[str, Any] | None
    error: str | None = None


class CallError(ValueError):
    """A call that cannot be used; `name` is its tool's name as far as known."""

    def __init__(self, message: str, name: str = ""):
        super().__init__(message)
        self.name = name


def read_calls(body: str, is_closed: bool, offer: Offer) -> list[Reading]:
    """Every call in one body: one, as a rule. is_closed: its closing tag was there."""
    body = body.strip().removesuffix(CLOSE)
    if fenced := _CODE_FENCE.match(body):
        body = fenced[1]
    try:
        if named := _NAMED_JSON.match(body):
            arguments, _ = loose_json.read(named[2], is_whole=is_closed)
            return [_reading(named[1].strip(), arguments, offer)]
        return (
            _read_xml(body, is_closed, offer) if body.startswith("<") else _read_json(body, is_closed, offer)
        )
    except CallError as error:
        return [Reading(error.name, None, str(error))]
    except LooseJSONError as error:
        return [Reading("", None, f"The tool call is not valid JSON: {error}. {HOW}")]


def _read_json(body: str, is_closed: bool, offer: Offer) -> list[Reading]:
    readings: list[Reading] = []
    position = 0
    while True:
        try:
            value, position = loose_json.read(body, position, is_whole=is_closed)
        except LooseJSONError as error:
            name = _misspelled_name(body, position)
            text = f"The tool call is not valid JSON: {error}. {HOW}"
            return [*readings, Reading(name, None, text)]
        readings += [_read_object(item, offer) for item in (value if isinstance(value, list) else [value])]
        position = len(body) - len(body[position:].lstrip("}], \t\r\n"))
        if body[position : position + 1] != "{":
            return readings or [Reading("", None, f"The tool call is empty. {HOW}")]


def _misspelled_name(body: str, start: int) -> str:
    match = re.compile(r"""\s*\{\s*["']?name["']?\s*:\s*["']([^"'\n]*)["']""").match(body, start)
    return match[1].strip() if match else ""


def _read_object(value: Value, offer: Offer) -> Reading:
    try:
        if isinstance(value, dict) and isinstance(value.get("function"), dict):
            value = value["function"]
        if not isinstance(value, dict):
            raise CallError(f"The tool call is not a JSON object. {HOW}")
        name = value.get("name")
        if not isinstance(name, str) or not name.strip():
            raise CallError(f'The tool call has no "name". {HOW}')
        return _reading(name.strip(), _arguments(value, name.strip(), offer), offer)
    except CallError as error:
        return Reading(error.name, None, str(error))


def _arguments(call: dict[str, Any], name: str, offer: Offer) -> Value:
    """The call's arguments; of a call that forgot to nest them, if the schema knows them all."""
    given = [key for key in ARGUMENT_KEYS if key in call]
    if len(given) > 1:
        raise CallError(f'The arguments of "{name}" are given twice. {HOW}', name)
    if given:
        return call[given[0]]
    loose = {key: value for key, value in call.items() if key not in _CALL_KEYS}
    if loose and not set(loose) <= set(offer.properties(name) or ()):
        raise CallError(f'The call of "{name}" has no "arguments". {HOW}', name)
    return loose


def _reading(name: str, arguments: Value, offer: Offer) -> Reading:
    if offer.names is not None and name not in offer.names:
        return Reading(name, None, _not_offered(name, offer.names))
    if isinstance(arguments, str):
        arguments = _parse_string(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return Reading(name, None, f'The arguments of "{name}" are not a JSON object. {HOW}')
    return Reading(name, arguments)


def _not_offered(name: str, names: frozenset[str]) -> str:
    if not names:
        return f'There is no tool "{name}": no tools are available. Answer without them.'
    return f'There is no tool "{name}". The tools are: {", ".join(sorted(names))}.'


def _parse_string(arguments: str) -> Value:
    """Arguments written as a string of JSON; the string itself if they are not."""
    if not arguments.strip():
        return {}
    try:
        value, end = loose_json.read(arguments)
    except LooseJSONError:
        return arguments
    return arguments if arguments[end:].strip() else value


def _read_xml(body: str, is_closed: bool, offer: Offer) -> list[Reading]:
    match = FUNCTION.match(body)
    if not match:
        raise CallError("The tool call has no function name. " + HOW_XML)
    name, rest = match[1].strip(), body[match.end() :]
    if rest.lstrip().startswith("{"):
        return [_reading(name, loose_json.read(rest, is_whole=is_closed)[0], offer)]
    if offer.names is not None and name not in offer.names:
        raise CallError(_not_offered(name, offer.names), name)
    properties = offer.properties(name) or {}
    parameters, end = _parameters(rest, name, is_closed)
    if not (is_closed or FUNCTION_END in rest[end:]):
        raise CallError(f'The call of "{name}" was cut off. {HOW_XML}', name)
    values = dict(parameters)
    return [Reading(name, {key: _typed(text, properties.get(key)) for key, text in values.items()})]


def _parameters(text: str, name: str, is_closed: bool) -> tuple[list[tuple[str, str]], int]:
    """Each parameter and its value as text, and where the last ends.

    Raises CallError if one is given twice, or was cut off.
    """
    found: list[tuple[str, str]] = []
    position = 0
    while match := PARAMETER.search(text, position):
        end = _value_end(text, match.end(), is_closed)
        if end is None:
            raise CallError(f'The call of "{name}" was cut off inside "{match[1]}". {HOW_XML}', name)
        value, position = text[match.end() : end].removeprefix("\n").removesuffix("\n"), end
        if match[1].strip() in dict(found):
            raise CallError(f'The parameter "{match[1]}" of "{name}" is given twice. {HOW_XML}', name)
        found.append((match[1].strip(), value))
    return found, position


_VALUE_MARK = re.compile(f"{PARAMETER_END}|{FUNCTION_END}|{CLOSE}|{PARAMETER.pattern}|{FUNCTION.pattern}")


def _value_end(text: str, start: int, is_closed: bool) -> int | None:
    """Where the value at `start` ends: at its closing tag or, where that was forgotten, at the next
    parameter, or at a `</function>` that ends a closed call. None if it was cut off."""
    quoted = ""
    for match in _VALUE_MARK.finditer(text, start):
        mark = match[0]
        if quoted:
            quoted = "" if mark == quoted else quoted
        elif mark.startswith("<function"):
            quoted = quoted_until(text[start : match.start()])
        elif mark == PARAMETER_END or mark.startswith("<parameter") or _ends_call(match, is_closed):
            return match.start()
    return None


def _ends_call(mark: re.Match[str], is_closed: bool) -> bool:
    return mark[0] == FUNCTION_END and is_closed and not mark.string[mark.end() :].strip()


def _typed(text: str, schema: Any) -> Value:
    """A value as its schema wants it. Text that does not fit stays text: the tool will say why not."""
    types = _types(schema)
    if not types or ("string" in types and not ("null" in types and text.strip() in ("null", "None"))):
        return text
    try:
        value, end = loose_json.read(text)
    except LooseJSONError:
        return text
    return value if not text[end:].strip() else text


def _types(schema: Any) -> set[str]:
    """Every type the schema allows at its top."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    types = {item for item in [named, *_list(named)] if isinstance(item, str)}
    for key in ("anyOf", "oneOf"):
        for choice in _list(schema.get(key)):
            types |= _types(choice)
    return types


def _list(value: Any) -> list[Any]:
    """A list, or nothing: a server may write anything into its schema."""
    return value if isinstance(value, list) else []
