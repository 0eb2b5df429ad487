"""Writes grammars in llguidance's Lark dialect: answers for a JSON schema, and calls of the tools offered.

A special token is written `<[id]>`. Everything else is text, which never becomes a special token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlx_qwen3.grammar.compilable_schema import compilable
from mlx_qwen3.parsing.schema_types import resolve, schema_types
from mlx_qwen3.tokenizer.chat_template import ToolFormat

Schema = Mapping[str, Any]

BLANK = r"BLANK: /\n{1,2}/"  # may follow thinking
# Between the parts of a JSON text: nothing, a space, or a new line indented by up to ten levels of four.
# It is bounded, because a model could otherwise write spaces without end.
WHITESPACE = r" |\n[ ]{0,40}"


def answer_rules(schema: Schema) -> str:
    """The grammar of an answer that is JSON for `schema`, after the blank line that may follow thinking."""
    return "\n".join(["start: BLANK? answer", *_answer(schema)])


def answer_or_call_rules(schema: Schema, call: str, tags: tuple[int, int], one_call: bool = False) -> str:
    """The grammar of an answer for `schema`, or of calls in its place. call: the rules of a call."""
    return "\n".join(["start: BLANK? (answer | calls)", *_answer(schema), _calls(tags[0], one_call), call])


def only_call_rules(call: str, tags: tuple[int, int], one_call: bool = False) -> str:
    """The grammar of calls, and nothing else, after the blank line that may follow thinking."""
    return "\n".join(["start: BLANK? calls", BLANK, _calls(tags[0], one_call), call])


def _calls(opening: int, one_call: bool) -> str:
    more = "" if one_call else f' ("\\n" <[{opening}]> call)*'
    return f"calls: <[{opening}]> call{more}"


def call_rules(tools: Mapping[str, Schema], tool_format: ToolFormat, tags: tuple[int, int]) -> str:
    """The rule `call`: what follows `<tool_call>`, up to and with `</tool_call>`.

    tools: name -> JSON schema of the parameters; each must be one that can become a grammar.
    tags: the ids of `<tool_call>` and `</tool_call>`.
    """
    rule = _json_call if tool_format is ToolFormat.JSON else _xml_call
    choices = " | ".join(f"tool{number}" for number in range(len(tools)))
    lines = [f'call: "\\n" ({choices}) "\\n" <[{tags[1]}]>']
    for number, (name, schema) in enumerate(tools.items()):
        lines += rule(f"tool{number}", name, compilable(schema))
    return "\n".join(lines)


def one_call_rules(rules: str) -> str:
    """The grammar of one call. rules: those of `call_rules`."""
    return f"start: call\n{rules}"


def _answer(schema: Schema) -> list[str]:
    return [BLANK, f"answer: {_json(compilable(schema))}"]


def _json(schema: Schema) -> str:
    # Without general escapes, only control characters could follow a `\u`.
    options = {"whitespace_pattern": WHITESPACE, "json_allow_general_unicode_escapes": True}
    return "%json " + json.dumps({**schema, "x-guidance": options})


def _text(text: str) -> str:
    """`text` as a literal of the grammar."""
    return json.dumps(text, ensure_ascii=False)


def _json_call(rule: str, name: str, schema: Schema) -> list[str]:
    """`{"name": ..., "arguments": {...}}`, with the spaces that the template writes."""
    start = json.dumps({"name": name}, ensure_ascii=False)[:-1] + ', "arguments": '
    return [f'{rule}: {_text(start)} {rule}-arguments "}}"', f"{rule}-arguments: {_json(schema)}"]


def _xml_call(rule: str, name: str, schema: Schema) -> list[str]:
    """`<function=...>` and its parameters, in the order of the schema."""
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
    """One parameter: a value of an enum, text up to the closing tag if it may be a string, otherwise JSON."""
    opening, closing = _text(f"<parameter={key}>\n"), _text("\n</parameter>\n")
    schema = resolve(value, root)
    types = schema_types(schema, root)
    if choices := schema.get("enum"):
        texts = [item if isinstance(item, str) else json.dumps(item) for item in choices]
        return [f"{rule}: {opening} ({' | '.join(map(_text, texts))}) {closing}"]
    if types and "string" not in types:
        definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
        return [
            f"{rule}: {opening} {rule}-value {closing}",
            f"{rule}-value: {_json({**schema, **definitions})}",
        ]
    return [f"{rule}: {opening} {rule}-text", _text_until(f"{rule}-text", closing)]


def _text_until(rule: str, closing: str) -> str:
    return f"{rule}[suffix={closing}]: /(.|\\n)*/"
