"""Arguments that are missing, None or empty text are no arguments, in templates of both kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mlx_qwen3.parsing.call_reader import OfferedTools, read_calls
from mlx_qwen3.tokenizer.chat_template import ChatTemplate

AS_WHOLE = """{% for m in messages %}{% for c in m.tool_calls or [] %}{% set c = c.function or c %}\
{"name": "{{ c.name }}", "arguments": {% if c.arguments is string %}{{ c.arguments }}{% else %}\
{{ c.arguments | tojson }}{% endif %}}{% endfor %}{% endfor %}{% if tools %}{% endif %}"""
ONE_BY_ONE = """{% for m in messages %}{% for c in m.tool_calls or [] %}{% set c = c.function or c %}\
<function={{ c.name }}>{% for k, v in c.arguments | items %}<parameter={{ k }}>{{ v }}{% endfor %}\
{% endfor %}{% endfor %}{% if tools %}{% endif %}"""
NOTHING: list[dict[str, Any]] = [
    {"arguments": value} for value in ("", " ", "\n", None, "null", {}, "{}")
] + [{}]


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("arguments", NOTHING, ids=str)
@pytest.mark.parametrize(
    ("source", "text"), [(AS_WHOLE, '{"name": "now", "arguments": {}}'), (ONE_BY_ONE, "<function=now>")]
)
def test_a_call_without_arguments(source: str, text: str, arguments: dict[str, Any], wrapped: bool) -> None:
    function = {"name": "now", **arguments}
    call = {"type": "function", "function": function} if wrapped else function
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    before = copy.deepcopy(messages)
    rendered = ChatTemplate(source).render(messages)
    assert "".join(getattr(piece, "text", piece) for piece in rendered) == text
    assert messages == before


@pytest.mark.parametrize("arguments", ['""', '" "', "null", '"null"', '"{}"', "{}", r'"\"\""', "None"])
def test_a_call_of_the_model_without_arguments(arguments: str) -> None:
    for key in ("arguments", "parameters"):
        (call,) = read_calls(f'{{"name": "now", "{key}": {arguments}}}', True, OfferedTools())
        assert (call.name, call.arguments) == ("now", {})
