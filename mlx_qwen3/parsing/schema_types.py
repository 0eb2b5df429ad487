"""Which JSON types a schema allows, through `$ref`, `allOf`, `anyOf`, `oneOf`, `enum` and `const`.

The schema of an MCP server may hold anything, so nothing here raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]

_MOST_STEPS = 20  # references within references
_PYTHON_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def schema_types(schema: Any, root: Schema, seen: frozenset[str] = frozenset()) -> set[str]:
    """The JSON types that `schema` allows; empty if it does not say. root: what `$ref` points into.

    seen: the references that led here.
    """
    reference = schema.get("$ref") if isinstance(schema, Mapping) else None
    if isinstance(reference, str):
        if reference in seen:
            return set()
        seen |= {reference}
    schema = resolve(schema, root)
    limits = [types for types in _limits(schema, root, seen) if types]
    if not limits:
        return {"object"} if "properties" in schema else {"array"} if "items" in schema else set()
    types = limits[0]
    for further in limits[1:]:
        types = _common(types, further) or types
    return types


def resolve(schema: Any, root: Schema) -> Schema:
    """`schema` with its `$ref` replaced by what that points to; empty if it is no schema."""
    for _ in range(_MOST_STEPS):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        target = _target(reference, root) if isinstance(reference, str) else None
        if not isinstance(target, Mapping):
            return schema
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return {}


def _limits(schema: Schema, root: Schema, seen: frozenset[str]) -> Iterator[set[str]]:
    """The types that each keyword allows; all of them hold."""
    named = schema.get("type")
    yield {item for item in [named, *_list(named)] if isinstance(item, str)}
    if values := [*_list(schema.get("enum")), *([schema["const"]] if "const" in schema else [])]:
        yield {_PYTHON_TYPES.get(type(value), "null") for value in values}
    for key in ("anyOf", "oneOf"):
        choices = [schema_types(choice, root, seen) for choice in _list(schema.get(key))]
        yield set().union(*choices) if all(choices) else set()
    for part in _list(schema.get("allOf")):
        yield schema_types(part, root, seen)


def _common(first: set[str], second: set[str]) -> set[str]:
    """The types in both. Integers are numbers."""
    both = first & second
    has_integer = ("integer" in first and "number" in second) or ("number" in first and "integer" in second)
    return both | ({"integer"} if has_integer else set())


def _target(reference: str, root: Schema) -> Any:
    """What a reference such as `#/$defs/name` points to; None if that is not in `root`."""
    if not reference.startswith("#"):
        return None
    value: Any = root
    for part in reference[1:].split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
