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
_LIST_KEYS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED_KEYS = ("properties", "patternProperties", "$defs", "definitions")
# Beside one of these, `properties` lists only a part of the object's properties.
_COMPOSING_KEYS = ("$ref", "anyOf", "oneOf")
# A schema with one of these says itself which further properties it allows.
_FURTHER_KEYS = ("additionalProperties", "patternProperties", "unevaluatedProperties")


def close_schema(schema: Schema) -> Schema:
    """`schema` with `additionalProperties: false` in each object that only lists its properties.

    A schema that composes an object of several schemas is returned unchanged.
    """
    if any(_is_composed(part) for part in subschemas(schema)):
        return schema
    closed: Schema = map_schema(schema, _close_object)
    return closed


def _is_composed(schema: Schema) -> bool:
    return "allOf" in schema or ("properties" in schema and any(key in schema for key in _COMPOSING_KEYS))


def _close_object(schema: Schema) -> Schema:
    if "properties" not in schema or any(key in schema for key in _FURTHER_KEYS):
        return schema
    unlisted = [name for name in schema.get("required", ()) if name not in schema["properties"]]
    return schema if unlisted else {**schema, "additionalProperties": False}


def subschemas(schema: Any) -> Iterator[Schema]:
    """`schema` and every schema in it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for _, part in parts_of(schema):
        yield from subschemas(part)


def parts_of(schema: Schema) -> Iterator[tuple[str, Any]]:
    """The schemas directly in `schema`, each with its place as in a JSON pointer."""
    for key in _SCHEMA_KEYS:
        if key in schema:
            yield key, schema[key]
    for key in _LIST_KEYS:
        if isinstance(schema.get(key), list):
            yield from ((f"{key}/{index}", part) for index, part in enumerate(schema[key]))
    for key in _NAMED_KEYS:
        if isinstance(schema.get(key), Mapping):
            yield from ((f"{key}/{name}", part) for name, part in schema[key].items())


def map_schema(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """`schema` with `change` applied to it and to every schema in it."""
    if not isinstance(schema, Mapping):
        return schema
    parts = {key: map_schema(schema[key], change) for key in _SCHEMA_KEYS if key in schema}
    for key in _LIST_KEYS:
        if isinstance(schema.get(key), list):
            parts[key] = [map_schema(item, change) for item in schema[key]]
    for key in _NAMED_KEYS:
        if isinstance(schema.get(key), Mapping):
            parts[key] = {name: map_schema(item, change) for name, item in schema[key].items()}
    return change({**schema, **parts})
