"""Parameters of XML calls: tags without their `>`, and values typed by every kind of schema."""

from __future__ import annotations

from typing import Any

import pytest
from parse_text import parse_text

from mlx_qwen3.events import ToolCall
from mlx_qwen3.parsing.schema_types import schema_types


def call(body: str, **properties: Any) -> ToolCall:
    """The only call of a text with one call of `f`; `$defs` is taken out of `properties`."""
    schema = {"type": "object", "$defs": properties.pop("defs", {}), "properties": properties}
    text = f"<tool_call>\n<function=f>\n{body}</function>\n</tool_call>"
    calls = [
        e for e in parse_text(text, tool_format="xml", tool_schemas={"f": schema}) if isinstance(e, ToolCall)
    ]
    assert len(calls) == 1
    return calls[0]


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("<parameter=path\n~/notes.md\n</parameter>\n", {"path": "~/notes.md"}),
        ("<parameter=path  \nif a > b: pass\n</parameter>\n", {"path": "if a > b: pass"}),
        ("<parameter=path\n<b>bold</b>\n</parameter>\n", {"path": "<b>bold</b>"}),
        ("<parameter=path\nx\n</parameter>\n<parameter=n\n3\n</parameter>\n", {"path": "x", "n": 3}),
        ("<parameter=path\n\n</parameter>\n", {"path": ""}),
        ('<parameter name="path"\nx\n</parameter>\n', {"path": "x"}),
        ("<parameter=path\nsay </tool_call> twice\n</parameter>\n", {"path": "say </tool_call> twice"}),
    ],
)
def test_a_parameter_tag_may_lack_its_end(body: str, arguments: dict[str, Any]) -> None:
    result = call(body, path={"type": "string"}, n={"type": "integer"})
    assert (result.arguments, result.error) == (arguments, None)


@pytest.mark.parametrize(
    "body",
    [
        "<parameter=path /etc/hosts</parameter>\n",
        "<path>\n/etc/hosts\n</path>\n",
        "path=/etc/hosts\n",
        "<parameter=path>\na </parameter> b\n</parameter>\n",
    ],
)
def test_text_outside_parameters_is_an_error_and_never_lost(body: str) -> None:
    result = call(body, path={"type": "string"})
    assert result.arguments is None
    assert "outside its parameters" in str(result.error)


DEFS = {
    "count": {"type": "integer"},
    "level": {"enum": [1, 2, 3]},
    "mode": {"enum": [0, "auto", None]},
    "point": {"properties": {"x": {"type": "number"}}},
    "again": {"$ref": "#/$defs/count"},
    "loop": {"$ref": "#/$defs/loop"},
}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"$ref": "#/$defs/count"}, "7", 7),
        ({"$ref": "#/$defs/again", "description": "how many"}, "7", 7),
        ({"allOf": [{"$ref": "#/$defs/count"}], "default": 1}, "7", 7),
        ({"anyOf": [{"$ref": "#/$defs/count"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "boolean"}]}, '["a"]', ["a"]),
        ({"oneOf": [{"type": "number"}, {"type": "boolean"}]}, "true", True),
        ({"$ref": "#/$defs/level"}, "2", 2),
        ({"enum": [0.5, 1]}, "0.5", 0.5),
        ({"const": 4}, "4", 4),
        ({"$ref": "#/$defs/mode"}, "0", 0),
        ({"$ref": "#/$defs/mode"}, "auto", "auto"),
        ({"$ref": "#/$defs/mode"}, "null", None),
        ({"enum": ["1", 2]}, "1", "1"),
        ({"$ref": "#/$defs/point"}, '{"x": 1.5}', {"x": 1.5}),
        ({"items": {}}, "[1]", [1]),
        ({"allOf": [{"type": ["string", "integer"]}, {"type": "number"}]}, "12", 12),
        # May be a string: it is written as it is.
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "12", "12"),
        ({"type": "string", "enum": ["1", "2"]}, "1", "1"),
        ({"anyOf": [{"type": "integer"}, {}]}, "12", "12"),
        ({}, "12", "12"),
        # Does not fit: the tool says so.
        ({"$ref": "#/$defs/count"}, "seven", "seven"),
        # Not a schema, or one that leads nowhere.
        ({"$ref": "#/$defs/loop"}, "x", "x"),
        ({"$ref": "#/nowhere"}, "x", "x"),
        ({"$ref": "other.json"}, "x", "x"),
        ({"anyOf": "x", "enum": 3, "type": 5, "allOf": {}}, "x", "x"),
        (True, "x", "x"),
    ],
    ids=str,
)
def test_a_value_has_the_type_of_its_schema(schema: Any, text: str, value: Any) -> None:
    result = call(f"<parameter=v>\n{text}\n</parameter>\n", v=schema, defs=DEFS)
    assert result.error is None
    assert result.arguments == {"v": value}
    assert type(result.arguments["v"]) is type(value)


def test_a_schema_that_refers_to_itself_ends() -> None:
    tree = {"anyOf": [{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/tree"}], "type": "object"}
    assert schema_types({"$ref": "#/$defs/tree"}, {"$defs": {"tree": tree}}) <= {"object"}
