"""Grammars in llguidance's Lark dialect: an answer for a JSON schema, calls of the tools offered.

Control tokens are written `<[id]>`; everything else is text, which never becomes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlx_qwen3.grammar.closed_schema import closed
from mlx_qwen3.tokenizer.chat_template import ToolFormat

Schema = Mapping[str, Any]

# Between the parts of a JSON text: nothing, a blank, or a new line indented up to ten levels of four.
# Bounded, so that no model can go on with blanks for ever.
WHITESPACE = r" |\n[ ]{0,40}"
# Kinds of values that XML calls spell as JSON; strings, and what may be one, stand there as they are.
SPELLED_AS_JSON = ("integer", "number", "boolean", "object", "array")


def answer_rules(schema: Schema) -> str:
    """An answer that is JSON for `schema`, behind the blank line that may follow thinking."""
    return "\n".join(["start: BLANK? answer", *_answer(schema)])


def answer_or_call_rules(schema: Schema, call: str, tags: tuple[int, int]) -> str:
    """An answer for `schema`, or calls instead of it; a call is what the rules `call` say."""
    opening, _ = tags
    return "\n".join(
        [
            "start: BLANK? (answer | calls)",
            *_answer(schema),
            f'calls: <[{opening}]> call ("\\n" <[{opening}]> call)*',
            call,
        ]
    )


def call_rules(tools: Mapping[str, Schema], tool_format: ToolFormat, tags: tuple[int, int]) -> str:
    """The rule `call`: what stands between `<tool_call>` and its end, that end included.

    tools: name -> JSON schema of its parameters; each of them must be usable. tags: the ids of
    `<tool_call>` and `</tool_call>`.
    """
    rule = _json_call if tool_format is ToolFormat.JSON else _xml_call
    choices = " | ".join(f"tool{number}" for number in range(len(tools)))
    lines = [f'call: "\\n" ({choices}) "\\n" <[{tags[1]}]>']
    for number, (name, schema) in enumerate(tools.items()):
        lines += rule(f"tool{number}", name, closed(schema))
    return "\n".join(lines)


def only(rules: str) -> str:
    """The grammar of one call."""
    return f"start: call\n{rules}"


def _answer(schema: Schema) -> list[str]:
    return [r"BLANK: /\n{1,2}/", f"answer: {_json(closed(schema))}"]


def _json(schema: Schema) -> str:
    return "%json " + json.dumps({**schema, "x-guidance": {"whitespace_pattern": WHITESPACE}})


def _text(text: str) -> str:
    """A literal."""
    return json.dumps(text, ensure_ascii=False)


def _json_call(rule: str, name: str, schema: Schema) -> list[str]:
    """`{"name": ..., "arguments": {...}}`, spaced as the template spaces it."""
    start = json.dumps({"name": name}, ensure_ascii=False)[:-1] + ', "arguments": '
    return [f'{rule}: {_text(start)} {rule}-arguments "}}"', f"{rule}-arguments: {_json(schema)}"]


def _xml_call(rule: str, name: str, schema: Schema) -> list[str]:
    """`<function=...>` and its parameters, in the schema's order."""
    opening, closing = _text(f"<function={name}>\n"), _text("</function>")
    if "properties" not in schema:
        return [f"{rule}: {opening} {rule}-text", _text_until(f"{rule}-text", closing)]
    parts, lines = [], []
    for number, (key, value) in enumerate(schema["properties"].items()):
        parameter = f"{rule}-{number}"
        parts.append(parameter if key in schema.get("required", ()) else f"{parameter}?")
        lines += _xml_parameter(parameter, key, value, schema)
    return [f"{rule}: {' '.join([opening, *parts, closing])}", *lines]


def _xml_parameter(rule: str, key: str, value: Any, root: Schema) -> list[str]:
    """One parameter: JSON where its schema says what kind, text up to the closing tag otherwise."""
    opening, closing = _text(f"<parameter={key}>\n"), _text("\n</parameter>\n")
    schema = value if isinstance(value, Mapping) else {}
    if choices := schema.get("enum"):
        spelled = [item if isinstance(item, str) else json.dumps(item) for item in choices]
        return [f"{rule}: {opening} ({' | '.join(map(_text, spelled))}) {closing}"]
    if schema.get("type") in SPELLED_AS_JSON:
        definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
        return [
            f"{rule}: {opening} {rule}-value {closing}",
            f"{rule}-value: {_json({**schema, **definitions})}",
        ]
    return [f"{rule}: {opening} {rule}-text", _text_until(f"{rule}-text", closing)]


def _text_until(rule: str, closing: str) -> str:
    return f"{rule}[suffix={closing}]: /(.|\\n)*/"
