"""Any text goes through message, tool result, file, session, batch and schema.

Nothing but our own errors is raised, nothing is saved that cannot be loaded, no control token is forged.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlx_qwen3
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.cli.batch_file import read_requests, result_line
from mlx_qwen3.cli.chat.text_files import read_text
from mlx_qwen3.cli.output import printable, write_json
from mlx_qwen3.engine.batch import BatchResult
from mlx_qwen3.engine.conversation import Conversation
from mlx_qwen3.errors import Qwen3Error, one_line
from mlx_qwen3.events import ToolCall
from mlx_qwen3.grammar import AnswerSchema
from mlx_qwen3.tokenizer import Tokenizer
from mlx_qwen3.tools.approval import Decision
from mlx_qwen3.tools.function import FunctionTool
from mlx_qwen3.tools.toolbox import ToolBox

LONG = "MLX_QWEN3_LONG_TESTS" in os.environ
COUNT = 20_000 if LONG else 300
STRANGE = [
    *("\u0000", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029", "\ufeff", "\ufffd", "\uffff", "\U0010ffff"),
    *("\ud83d", "\ude00", "\udce9", "\ufdd0", "\ue000", "e\u0301", "\u1100\u1161", "\u202e", "\r\n", "\t"),
    *("<|", "|>", "</", "tool_call", "{%", "{{", "}}", "%}", '"', "\\", "\\u003c", "&lt;", "]]>", "```"),
]


def random_text(choose: random.Random, tokens: list[str]) -> str:
    """Pieces of all of Unicode, half surrogates, control characters, and control tokens whole and cut."""
    pieces = []
    for _ in range(choose.randint(0, 8)):
        kind = choose.random()
        token = choose.choice(tokens)
        cut = choose.randint(0, len(token))
        pieces += [
            choose.choice(STRANGE) if kind < 0.3 else "",
            chr(choose.randrange(0x110000)) if kind < 0.5 else "",
            token if 0.5 <= kind < 0.7 else "",
            token[:cut] if 0.7 <= kind < 0.8 else token[cut:] if 0.8 <= kind < 0.9 else "",
            "".join(chr(choose.randrange(32, 127)) for _ in range(choose.randint(0, 6))),
        ]
    return "".join(pieces)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(Path(mlx_qwen3.__file__).parent / "demo")


@pytest.fixture(scope="module")
def texts(tokenizer: Tokenizer) -> list[str]:
    choose = random.Random(20)
    return [random_text(choose, list(tokenizer.control_tokens)) for _ in range(COUNT)]


def for_each(texts: list[str], check: Callable[[str], object]) -> None:
    """Run `check` on every text, which may raise our errors; one is reported with its text."""
    for text in texts:
        try:
            check(text)
        except Qwen3Error as error:
            assert "\n" not in str(error), repr(text)  # noqa: PT017
            str(error).encode()
        except BaseException as error:
            error.add_note(f"the text: {text!r}")
            raise


def conversation_of(text: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A conversation that says `text` wherever a person, a model or a tool may."""
    call = {"name": "f", "arguments": {"a": text, text: [text, {text: 1}]}}
    messages = [
        {"role": "system", "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text, "reasoning_content": text, "tool_calls": [call]},
        {"role": "tool", "content": text},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]
    parameters = {"type": "object", "properties": {text: {"type": "string", "description": text}}}
    function = {"name": "f", "description": text, "parameters": parameters}
    return messages, [{"type": "function", "function": function}]


def test_no_text_in_a_prompt_becomes_a_control_token(tokenizer: Tokenizer, texts: list[str]) -> None:
    control = set(tokenizer.control_tokens.values())

    def written(text: str) -> Counter[int]:
        messages, tools = conversation_of(text)
        return Counter(id_ for id_ in tokenizer.apply_chat_template(messages, tools) if id_ in control)

    expected = written("x")

    def check(text: str) -> None:
        counts = written(text)
        assert not counts - expected  # none more; a template may leave out thinking that is empty
        missing = expected - counts
        assert set(missing) <= {tokenizer.think_start_id, tokenizer.think_end_id}
        assert not control & set(tokenizer.encode(text))

    for_each(texts, check)


def test_what_is_said_can_be_saved_and_loaded(texts: list[str], tmp_path: Path) -> None:
    def check(text: str) -> None:
        messages, _ = conversation_of(text)
        conversation = Conversation(messages[:4], text if text.strip() else "")
        conversation.save(tmp_path / "c.json", {"sampling": {}, "thinking": True, "thinking_budget": None})
        loaded, _ = Conversation.load(tmp_path / "c.json")
        safe = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert loaded.messages[1]["content"] == safe
        loaded.save(tmp_path / "d.json", {"sampling": {}, "thinking": True, "thinking_budget": None})
        assert json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))["messages"] == loaded.messages

    for_each(texts if LONG else texts[:150], check)


def test_what_a_tool_says_or_raises_reaches_the_model(tokenizer: Tokenizer, texts: list[str]) -> None:
    def say(text: str) -> str:
        "Says it, or fails with it."
        if len(text) % 3 == 0:
            raise ValueError(text)
        return text

    box = ToolBox([FunctionTool(say, None, 60.0)])

    def check(text: str) -> None:
        call = ToolCall(0, "say", {"text": text}, json.dumps({"text": text}), None)
        result = box.run([call], lambda request: Decision(True))[0]
        result.text.encode()
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}, {"role": "tool", "content": result.text}]
        )
        assert ids

    for_each(texts if LONG else texts[:150], check)


def test_any_bytes_of_a_file_are_text_or_refused(texts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "f.txt"

    def check(text: str) -> None:
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        read_text(file).encode()

    for_each(texts, check)


def test_any_line_of_a_batch_is_read_and_answered(tokenizer: Tokenizer, texts: list[str]) -> None:
    import io

    def check(text: str) -> None:
        rows = [{"prompt": text, "id": text}, {"messages": conversation_of(text)[0], "id": [text]}]
        for ensure_ascii in (True, False):
            lines = "\n".join(json.dumps(row, ensure_ascii=ensure_ascii) for row in rows)
            requests = read_requests(lines, "b.jsonl")
            assert [request.id for request in requests] == [text, [text]]
            output = io.StringIO()
            for request in requests:
                write_json(result_line(request, BatchResult(0, request.id, text=text)), output)
            written = output.getvalue().encode().decode()
            assert [json.loads(line)["id"] for line in written.splitlines()] == [text, [text]]
        assert [request.prompt for request in read_requests("-" + text, "b.txt", True) if request.prompt]

    for_each(texts, check)


def test_any_text_may_stand_in_a_schema(tokenizer: Tokenizer, texts: list[str]) -> None:
    def check(text: str) -> None:
        schema = AnswerSchema.of(
            {
                "type": "object",
                "title": text,
                "description": text,
                "properties": {text: {"enum": [text, 1]}, "b": {"const": text}},
                "required": [text],
            }
        )
        messages = schema.add_to([{"role": "user", "content": text}])
        assert tokenizer.apply_chat_template(messages)
        schema.parse(text)
        AnswerSchema.of({"type": "string", "pattern": text})

    for_each(texts if LONG else texts[:60], check)


def test_any_text_can_be_shown(texts: list[str]) -> None:
    def check(text: str) -> None:
        printable(text).encode()
        line = one_line(text)
        line.encode()
        assert "\n" not in line

    for_each(texts, check)
