"""Random conversations that a model, its tools and honest people could have had."""

from __future__ import annotations

import json
import random
from typing import Any

_WORDS = [
    *("hello", "Qwen3", "naïve café", "  two spaces  ", "tab\there", "3.14159", "x = y < z > w", "don't"),
    *("東京は晴れ", "你好，世界", "한국어", "Привет", "مرحبا بالعالم", "שלום", "नमस्ते", "ไทย", "ελληνικά"),
    *("👩\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "🇫🇷", "e\u0301", "\u200b", "𝔘𝔫𝔦", "ﬁ", "½", "\u00a0"),
    *("/think", "/no_think", "`code`", "<b>bold</b>", '{"a": [1, 2]}', "a\\nb"),
    *("</s>", "<|", "|>", "<", "&lt;"),
    *("\n", "\n\n", "\r\n", "\n  - item", "```py\nprint(1)\n```", " ", "."),
]
_SCALARS = [None, True, False, 0, -1, 2.5, 1e30, "", "é", 'say "hi"', "line\nbreak", "<tag>"]


def random_request(seed: int) -> dict[str, Any]:
    """Keyword arguments of `apply_chat_template`, the same ones for the same seed."""
    pick = random.Random(seed)
    messages = [{"role": "system", "content": _text(pick)}] if pick.random() < 0.5 else []
    for _ in range(pick.randint(1, 4)):
        messages += _turn(pick)
    if pick.random() < 0.5:
        messages.append({"role": "user", "content": _text(pick)})
    return {
        "messages": messages,
        "tools": [_tool(pick) for _ in range(pick.randint(1, 3))] if pick.random() < 0.5 else None,
        "enable_thinking": pick.random() < 0.5,
        "add_generation_prompt": pick.random() < 0.7,
    }


def _turn(pick: random.Random) -> list[dict[str, Any]]:
    turn = [{"role": "user", "content": _text(pick)}]
    if pick.random() < 0.1:
        turn.append({"role": "system", "content": _text(pick)})
    for _ in range(pick.choice([0, 0, 1, 2])):
        calls = [_call(pick) for _ in range(pick.randint(1, 3))]
        turn.append(_answer(pick) | {"tool_calls": calls})
        turn += [{"role": "tool", "content": _text(pick)} for _ in calls]
    return turn if pick.random() < 0.2 else [*turn, _answer(pick)]


def _answer(pick: random.Random) -> dict[str, Any]:
    answer, thinking = _text(pick), _text(pick)
    style = pick.choice(["plain", "inline", "inline, unopened", "apart", "apart, empty", "none"])
    if style == "inline":
        answer = f"<think>\n{thinking}\n</think>\n\n{answer}"
    elif style == "inline, unopened":
        answer = f"{thinking}</think>{answer}"
    message = {"role": "assistant", "content": answer}
    extra = {"apart": thinking, "apart, empty": "", "none": None}
    return message | {"reasoning_content": extra[style]} if style in extra else message


def _call(pick: random.Random) -> dict[str, Any]:
    arguments: Any = {_word(pick): _value(pick) for _ in range(pick.randint(0, 3))}
    if pick.random() < 0.4:
        arguments = json.dumps(arguments, ensure_ascii=pick.random() < 0.5)
    function = {"name": pick.choice(["search", "get_weather", "天气"]), "arguments": arguments}
    return pick.choice([function, {"id": "call_1", "type": "function", "function": function}])


def _tool(pick: random.Random) -> dict[str, Any]:
    properties = {
        _word(pick): {"type": pick.choice(["string", "number"]), "description": _text(pick)} for _ in range(2)
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    function = {"name": "search", "description": _text(pick), "parameters": parameters}
    return {"type": "function", "function": function}


def _value(pick: random.Random, depth: int = 0) -> Any:
    if depth < 2 and pick.random() < 0.3:
        return [_value(pick, depth + 1) for _ in range(pick.randint(0, 3))]
    if depth < 2 and pick.random() < 0.3:
        return {_word(pick): _value(pick, depth + 1) for _ in range(pick.randint(0, 3))}
    return pick.choice([*_SCALARS, _text(pick)])


def _text(pick: random.Random) -> str:
    return pick.choice(["", " "]).join(_word(pick) for _ in range(pick.choice([0, 1, 2, 3, 5, 12])))


def _word(pick: random.Random) -> str:
    return pick.choice(_WORDS)
