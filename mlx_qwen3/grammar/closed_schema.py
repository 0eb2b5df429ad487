"""Schemas without room for what they do not name.

A JSON schema allows properties beyond those it lists unless it says otherwise. A program that asks for
some has no use for others, and what a model would put there is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]

# Keywords that hold a schema, a list of schemas, or schemas by name.
_ONE = ("items", "additionalProperties")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
# Beside one of these, `properties` lists a part of an object, and others are listed elsewhere.
_COMPOSING = ("$ref", "anyOf", "oneOf")
_SAYS_MORE = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def closed(schema: Schema) -> Schema:
    """`schema` with `additionalProperties: false` wherever an object's properties are listed and nothing
    is said of others. Unchanged where objects are composed of several schemas."""
    changed: Schema = schema if _any(schema, _is_composed) else _map(schema, _close)
    return changed


def _is_composed(schema: Schema) -> bool:
    return "allOf" in schema or ("properties" in schema and any(key in schema for key in _COMPOSING))


def _close(schema: Schema) -> Schema:
    if "properties" not in schema or any(key in schema for key in _SAYS_MORE):
        return schema
    unlisted = [name for name in schema.get("required", ()) if name not in schema["properties"]]
    return schema if unlisted else {**schema, "additionalProperties": False}


def _map(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """`schema` with `change` made to it and to every schema in it."""
    if not isinstance(schema, Mapping):
        return schema
    parts = {key: _map(schema[key], change) for key in _ONE if key in schema}
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            parts[key] = [_map(item, change) for item in schema[key]]
    for key in _NAMED:
        if isinstance(schema.get(key), Mapping):
            parts[key] = {name: _map(item, change) for name, item in schema[key].items()}
    return change({**schema, **parts})


def _any(schema: Schema, test: Callable[[Schema], bool]) -> bool:
    found: list[bool] = []

    def look(part: Schema) -> Schema:
        found.append(test(part))
        return part

    _map(schema, look)
    return any(found)
