"""Random JSON schemas of every kind that a grammar can be made of, the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

WORDS = [
    "name",
    "größe",
    "x",
    'is "ready"',
    "unit price",
    "items",
    "tags",
    "名前",
    "a/b",
    "Ende",
    "on",
    "z\\",
]


def random_schema(seed: int) -> Schema:
    """A schema, an object as a rule, nested three deep at most."""
    choose = random.Random(seed)
    schema = (_object if choose.random() < 0.8 else _any)(choose, 3)
    if choose.random() < 0.15:
        schema = _recursive(choose, schema)
    return schema


def _any(choose: random.Random, depth: int) -> Schema:
    kinds = SCALARS if depth == 0 else [*SCALARS, _object, _object, _array, _array, _choice, _map]
    return choose.choice(kinds)(choose, depth - 1)


def _object(choose: random.Random, depth: int) -> Schema:
    names = choose.sample(WORDS, choose.randint(0, 4))
    schema: Schema = {"type": "object", "properties": {name: _any(choose, depth) for name in names}}
    required = [name for name in names if choose.random() < 0.7]
    if required or choose.random() < 0.5:
        schema["required"] = required
    if choose.random() < 0.5:
        schema["additionalProperties"] = choose.choice([False, True, {"type": "integer"}])
    return schema


def _map(choose: random.Random, depth: int) -> Schema:
    return {
        "type": "object",
        "additionalProperties": _any(choose, depth),
        "minProperties": choose.randint(0, 1),
    }


def _array(choose: random.Random, depth: int) -> Schema:
    schema: Schema = {"type": "array", "items": _any(choose, depth)}
    if choose.random() < 0.5:
        schema["minItems"] = choose.randint(0, 3)
    if choose.random() < 0.5:
        schema["maxItems"] = schema.get("minItems", 0) + choose.randint(0, 3)
    if choose.random() < 0.2:
        schema |= {"prefixItems": [_any(choose, 0), _any(choose, 0)], "minItems": 2, "maxItems": 4}
    return schema


def _choice(choose: random.Random, depth: int) -> Schema:
    return {"anyOf": [_any(choose, depth) for _ in range(choose.randint(2, 3))]}


def _recursive(choose: random.Random, inner: Schema) -> Schema:
    node = {
        "type": "object",
        "properties": {"value": inner, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["value", "next"],
    }
    return {"$ref": "#/$defs/node", "$defs": {"node": node}}


def _integer(choose: random.Random, depth: int) -> Schema:
    schema: Schema = {"type": "integer"}
    if choose.random() < 0.6:
        schema["minimum"] = choose.randint(-1000, 1000)
    if choose.random() < 0.5:
        schema["exclusiveMaximum"] = schema.get("minimum", 0) + choose.randint(2, 10_000)
    if choose.random() < 0.1:
        schema = {"type": "integer", "multipleOf": choose.choice([2, 5, 10])}
    return schema


def _number(choose: random.Random, depth: int) -> Schema:
    schema: Schema = {"type": "number"}
    if choose.random() < 0.4:
        schema |= {"minimum": -choose.random(), "maximum": round(choose.random() * 100, 3)}
    return schema


def _string(choose: random.Random, depth: int) -> Schema:
    schema: Schema = {"type": "string"}
    if choose.random() < 0.5:
        schema["maxLength"] = choose.randint(1, 60)
    if choose.random() < 0.3:
        schema["minLength"] = choose.randint(0, schema.get("maxLength", 20))
    return schema


def _pattern(choose: random.Random, depth: int) -> Schema:
    return {
        "type": "string",
        "pattern": choose.choice(["^[a-z]{2,8}$", "^\\d{3}-\\d{4}$", "^(ja|nein)!?$", "^A.*Z$"]),
    }


def _format(choose: random.Random, depth: int) -> Schema:
    return {"type": "string", "format": choose.choice(["date", "time", "date-time", "uuid", "ipv4", "email"])}


def _fixed(choose: random.Random, depth: int) -> Schema:
    values = [None, True, 3, -2.5, "ja", 'a "quoted" word', "<think>", "grün", [1, 2], {"a": 1}, ""]
    return {"const": choose.choice(values)} if choose.random() < 0.3 else {"enum": choose.sample(values, 3)}


def _simple(choose: random.Random, depth: int) -> Schema:
    return {"type": choose.choice(["boolean", "null", ["string", "null"], ["integer", "boolean"]])}


SCALARS: list[Callable[[random.Random, int], Schema]] = [
    *(_integer, _number, _string, _string, _pattern, _format, _fixed, _simple),
]


POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "label": {"type": "string"}},
    "required": ["x", "label"],
}
