"""Closes the objects of a JSON schema: no properties besides those it lists.

JSON Schema allows further properties unless a schema forbids them. A program that lists properties has no use
for others, and the model would invent them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

# Keywords that hold a schema, a list of schemas, or schemas by name.
_SCHEMA_KEYS = ("items", "additionalProperties")
_LIST_KEYS = ("anyOf", "oneOf", "prefixItems")
_NAMED_KEYS = ("properties", "patternProperties", "$defs", "definitions")
# Beside one of these, `properties` lists only a part of the object's properties.
_COMPOSING_KEYS = ("$ref", "anyOf", "oneOf")
# A schema with one of these says itself which further properties it allows.
_FURTHER_KEYS = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def close_schema(schema: Schema) -> Schema:
    """`schema` with `additionalProperties: false` in each object that only lists its properties.

    A schema that composes an object of several schemas is returned unchanged.
    """
    if any(_is_composed(part) for part in _subschemas(schema)):
        return schema
    closed: Schema = _map(schema, _close_object)
    return closed


def _is_composed(schema: Schema) -> bool:
    return "allOf" in schema or ("properties" in schema and any(key in schema for key in _COMPOSING_KEYS))


def _close_object(schema: Schema) -> Schema:
    if "properties" not in schema or any(key in schema for key in _FURTHER_KEYS):
        return schema
    unlisted = [name for name in schema.get("required", ()) if name not in schema["properties"]]
    return schema if unlisted else {**schema, "additionalProperties": False}


def _subschemas(schema: Any) -> Iterator[Schema]:
    """`schema` and every schema in it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key in _SCHEMA_KEYS:
        yield from _subschemas(schema.get(key))
    for key in _LIST_KEYS:
        if isinstance(schema.get(key), list):
            for part in schema[key]:
                yield from _subschemas(part)
    for key in _NAMED_KEYS:
        if isinstance(schema.get(key), Mapping):
            for part in schema[key].values():
                yield from _subschemas(part)


def _map(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """`schema` with `change` applied to it and to every schema in it."""
    if not isinstance(schema, Mapping):
        return schema
    parts = {key: _map(schema[key], change) for key in _SCHEMA_KEYS if key in schema}
    for key in _LIST_KEYS:
        if isinstance(schema.get(key), list):
            parts[key] = [_map(item, change) for item in schema[key]]
    for key in _NAMED_KEYS:
        if isinstance(schema.get(key), Mapping):
            parts[key] = {name: _map(item, change) for name, item in schema[key].items()}
    return change({**schema, **parts})
