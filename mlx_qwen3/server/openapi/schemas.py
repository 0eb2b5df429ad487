"""Builds JSON schemas in few words. A field that may be left out may also be null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_qwen3.generation.params import RANGES

Schema = dict[str, Any]

ANY: Schema = {}
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
MAPPING: Schema = {"type": "object"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TOKEN_IDS: Schema = {"type": "array", "items": COUNT}


def an_object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object of a request, which has no fields but these."""
    properties = {**required, **{name: or_null(schema) for name, schema in (optional or {}).items()}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": {"type": "null"},  # which is as if it were not there
    }


def answer(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object of an answer, which may get more fields in later versions."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def or_null(schema: Schema) -> Schema:
    """`schema`, or null."""
    if schema in (ANY, {"type": "null"}):
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(*schemas: Schema) -> Schema:
    """What fits any of `schemas`."""
    return {"anyOf": list(schemas)}


def a_list(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list of `items`."""
    limits = ({"minItems": least} if least else {}) | ({"maxItems": most} if most is not None else {})
    return {"type": "array", "items": items, **limits}


def a_word(*words: str) -> Schema:
    """One of `words`."""
    return {"type": "string", "enum": list(words)}


def only(*values: Any) -> Schema:
    """One of `values`: a field that may be there, but changes nothing. Without values it must be null."""
    return {"enum": list(values)} if values else {"type": "null"}


def whole(low: int = 1 - 2**63, high: int = 2**63 - 1) -> Schema:
    """A whole number between `low` and `high`."""
    return {"type": "integer", "minimum": low, "maximum": high}


def parameter(name: str) -> Schema:
    """A sampling parameter, with its range."""
    low, high = RANGES[name]
    return {"type": "number", "minimum": low, "maximum": high}


def skipped(names: Sequence[str]) -> dict[str, Schema]:
    """Fields that are taken and change no answer."""
    return {name: {"description": "Taken, and changes nothing in the answer."} for name in names}
