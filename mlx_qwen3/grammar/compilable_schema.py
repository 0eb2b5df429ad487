"""Brings a JSON schema into the form that llguidance compiles, without a change of what it allows.

Formats that llguidance does not know are dropped, as JSON Schema says. `oneOf` becomes `anyOf` where no
value can match two of its choices. Times end at second 59 and dates are those of the calendar from year 1
on, as Python reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from mlx_qwen3.grammar.closed_schema import close_schema, map_schema, parts_of
from mlx_qwen3.parsing.schema_types import Schema, resolve, schema_types

_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
_YEAR = r"([1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])-"
_LEAP_YEAR = r"(\d{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-"
_DATE = rf"({_YEAR}((0[13-9]|1[0-2])-\d{{2}}|02-([01]\d|2[0-8]))|{_LEAP_YEAR}02-29)"
_FORMAT_PATTERNS = {
    "time": r"^\d{2}:\d{2}:[0-5]",
    "date": f"^{_DATE}",
    "date-time": f"^{_DATE}" + r".\d{2}:\d{2}:[0-5]",
}
_WRAPPER_KEYS = frozenset(("name", "strict", "schema", "description", "type"))


def unwrap(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema in OpenAI's wrapper `{"name", "strict", "schema"}`; any other schema as it is."""
    inner = schema.get("json_schema")
    if isinstance(inner, Mapping) and schema.get("type") == "json_schema":
        schema = inner
    inner = schema.get("schema")
    is_wrapper = isinstance(schema.get("name"), str) or schema.get("type") == "json_schema"
    return inner if isinstance(inner, Mapping) and is_wrapper and set(schema) <= _WRAPPER_KEYS else schema


def compilable(schema: Schema) -> Schema:
    """`schema`, closed and in the form that llguidance compiles."""
    closed = close_schema(schema)
    changed: Schema = map_schema(closed, _with_known_format)
    return _with_any_of(changed, schema)


def _with_known_format(schema: Schema) -> Schema:
    form = schema.get("format")
    if not isinstance(form, str):
        return schema
    if form not in _FORMATS:
        return {key: value for key, value in schema.items() if key != "format"}
    pattern = _FORMAT_PATTERNS.get(form)
    if pattern is None:
        return schema
    if "pattern" not in schema:
        return {**schema, "pattern": pattern}
    parts = schema.get("allOf", [])
    return {**schema, "allOf": [*parts, {"pattern": pattern}]} if isinstance(parts, list) else schema


def _with_any_of(schema: Schema, root: Schema) -> Schema:
    def change(part: Schema) -> Schema:
        choices = part.get("oneOf")
        if not isinstance(choices, list) or "anyOf" in part:
            return part
        choices = [_typed(choice) for choice in choices]
        if not all(_are_disjoint(first, second, root) for first, second in combinations(choices, 2)):
            return part
        return {**{key: value for key, value in part.items() if key != "oneOf"}, "anyOf": choices}

    changed: Schema = map_schema(schema, change)
    return changed


def _typed(choice: Any) -> Any:
    """A choice that only lists properties, for objects alone: any number matches each such choice."""
    is_untyped = isinstance(choice, Mapping) and "$ref" not in choice and not _stated_types(choice, {})
    return {"type": "object", **choice} if is_untyped and "properties" in choice else choice


def _stated_types(schema: Schema, root: Schema) -> set[str]:
    """The types that a schema allows, without those that its keywords merely suggest."""
    hints = ("properties", "items")
    return schema_types({key: value for key, value in schema.items() if key not in hints}, root)


def _are_disjoint(first: Any, second: Any, root: Schema, depth: int = 0) -> bool:
    """Whether surely no value matches both schemas."""
    first, second = resolve(first, root), resolve(second, root)
    types = _stated_types(first, root), _stated_types(second, root)
    if not all(types) or depth > 3:
        return False
    numbers = {"integer", "number"}
    common = (types[0] & types[1]) | (numbers if types[0] & numbers and types[1] & numbers else set())
    if not common:
        return True
    values = _values(first), _values(second)
    if values[0] is not None and values[1] is not None:
        return not any(value in values[1] for value in values[0])
    if common <= numbers:
        return _ranges_are_disjoint(first, second, "minimum", "maximum")
    if common == {"string"}:
        return _ranges_are_disjoint(first, second, "minLength", "maxLength")
    if common == {"array"}:
        return _ranges_are_disjoint(first, second, "minItems", "maxItems")
    return common == {"object"} and _objects_are_disjoint(first, second, root, depth)


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _ranges_are_disjoint(first: Schema, second: Schema, low: str, high: str) -> bool:
    def is_below(lower: Schema, upper: Schema) -> bool:
        most, least = lower.get(high), upper.get(low)
        return isinstance(most, int | float) and isinstance(least, int | float) and most < least

    return is_below(first, second) or is_below(second, first)


def _objects_are_disjoint(first: Schema, second: Schema, root: Schema, depth: int) -> bool:
    """Whether a property tells them apart: its values differ, or one demands it and the other forbids it."""
    for one, other in ((first, second), (second, first)):
        properties, others = one.get("properties", {}), other.get("properties", {})
        if not isinstance(properties, Mapping) or not isinstance(others, Mapping):
            return False
        is_closed = other.get("additionalProperties") is False and "patternProperties" not in other
        for name in one.get("required", ()):
            if name not in others and is_closed:
                return True
            if name in others and _are_disjoint(properties.get(name), others[name], root, depth + 1):
                return True
    return False


def find_problem(
    schema: Schema, problem_of: Callable[[Schema], str], path: str = "#", root: Schema | None = None
) -> str:
    """Why `schema` cannot be compiled and where: the deepest place whose schema fails by itself."""
    root = schema if root is None else root
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    problem = problem_of({**definitions, **schema})
    if not problem:
        return ""
    for place, part in parts_of(schema):
        is_definition = place.startswith(("$defs/", "definitions/"))
        if isinstance(part, Mapping) and problem_of({**({} if is_definition else definitions), **part}):
            return find_problem(part, problem_of, f"{path}/{place}", {} if is_definition else root)
    return problem if path == "#" else f"{path}: {problem}"
