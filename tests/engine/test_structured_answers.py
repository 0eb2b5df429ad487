"""Structured answers of whole turns: thinking, budgets, loops, limits and tools around the form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Literal

import jsonschema
import pytest
from pydantic import BaseModel, field_validator
from random_schemas import POINT, random_schema
from scripted import script

from mlx_qwen3 import BatchRequest, Engine
from mlx_qwen3.errors import SchemaError


class Point(BaseModel):
    x: int
    label: str
    kind: Literal["corner", "centre"] = "corner"


@pytest.fixture(scope="module")
def demo() -> Iterator[Engine]:
    with Engine("demo") as loaded:
        yield loaded


@pytest.mark.parametrize("thinking", [True, False])
def test_the_demo_answers_in_any_form(thinking: bool, demo: Engine) -> None:
    for seed in range(4):
        schema = random_schema(1000 + seed)
        session = demo.session(thinking=thinking, sampling={"max_tokens": 200, "seed": seed})
        reply = session.ask("What is 47 + 85?", schema=schema)
        jsonschema.validate(reply.parsed, schema)
        jsonschema.validate(json.loads(reply.answer), schema)


def test_a_pydantic_model_comes_back_as_its_instance(demo: Engine) -> None:
    session = demo.session(sampling={"max_tokens": 200, "seed": 1}, thinking_budget=5)
    reply = session.ask("What is 2 + 3?", schema=Point)
    assert isinstance(reply.parsed, Point)
    assert reply.stats.thinking_tokens <= 5
    assert session.messages[0]["content"] == "What is 2 + 3?"  # the form is asked for, and not kept
    assert isinstance(session.ask("And 3?", schema=list[Literal["a", "b"]]).parsed, list)
    assert session.ask("What is 12 + 30?").parsed is None


@pytest.mark.parametrize(
    "begun", ['{"x": 1', '{"x": -', '{"x": 7, "label": "a', '{"x": 7, "label": "a"}', "{"]
)
def test_a_begun_answer_is_continued_in_its_form(begun: str, demo: Engine) -> None:
    messages = [{"role": "user", "content": "Give me a point."}, {"role": "assistant", "content": begun}]
    request = BatchRequest(messages=messages, thinking=False, schema=Point, continue_final_message=True)
    (result,) = demo.generate_batch([request], sampling={"max_tokens": 60, "seed": 3})
    assert result.error is None
    assert Point.model_validate_json(begun + result.text) == result.parsed


def test_a_begun_answer_of_another_form_is_one_line(demo: Engine) -> None:
    messages = [{"role": "user", "content": "Give me a point."}, {"role": "assistant", "content": "[1"}]
    request = BatchRequest(messages=messages, thinking=False, schema=Point, continue_final_message=True)
    (result,) = demo.generate_batch([request], sampling={"max_tokens": 60})
    assert result.error == "the answer to continue does not begin as its schema demands"


def test_events_are_the_same_with_async(demo: Engine) -> None:
    async def answer() -> str:
        session = demo.session(thinking=False, sampling={"max_tokens": 100, "seed": 1})
        return "".join(
            [event.text async for event in session.asend("hi", schema=POINT) if hasattr(event, "text")]
        )

    jsonschema.validate(json.loads(asyncio.run(answer())), POINT)


def test_a_model_s_own_checks_are_heard(demo: Engine) -> None:
    class Never(BaseModel):
        x: Literal[1]

        @field_validator("x")
        @classmethod
        def refuse(cls, value: int) -> int:
            raise ValueError("not today")

    with pytest.raises(SchemaError, match="not today"):
        demo.session(thinking=False).ask("hi", schema=Never)


def test_an_answer_that_was_cut_off_has_no_value(demo: Engine) -> None:
    reply = demo.session(thinking=False, sampling={"max_tokens": 3}).ask("hi", schema=POINT)
    assert reply.finish_reason == "length"
    assert reply.parsed is None


def test_a_loop_is_led_to_the_end_of_the_form(engine: Engine) -> None:
    """The scripted model says one thing for ever, where it may; inside a string it always may."""
    script(engine, '{"x": 1, "label": "' + "again " * 400)
    reply = engine.session(thinking=False).ask("hi", schema=POINT)
    assert reply.finish_reason == "loop"
    assert reply.parsed["label"].startswith("again again")


def test_thinking_that_would_leave_no_room_is_ended(engine: Engine) -> None:
    script(engine, "<think>\n" + "".join(chr(97 + i * i % 25) for i in range(400)), '{"x": 1, "label": "a"}')
    reply = engine.session(sampling={"max_tokens": 300}).ask("hi", schema=POINT)
    assert reply.parsed is not None
    assert 50 < reply.stats.thinking_tokens < 300


def test_tools_may_be_called_before_an_answer_in_form(engine: Engine) -> None:
    def double(n: int) -> int:
        """Twice n."""
        return 2 * n

    call = '<tool_call>\n{"name": "double", "arguments": {"n": 4}}\n</tool_call>'
    script(engine, "<think>\nhm\n</think>\n\n" + call, '<think>\n\n</think>\n\n{"x": 8, "label": "twice"}')
    reply = engine.session(tools=[double]).ask("go", schema=POINT)
    assert [called.arguments for called in reply.tool_calls] == [{"n": 4}]
    assert reply.parsed == {"x": 8, "label": "twice"}


def test_guessing_ahead_changes_no_answer(demo: Engine) -> None:
    with Engine("demo", draft_model="text") as guessing:
        answers = [
            loaded.session(sampling={"max_tokens": 120, "seed": 2}, thinking=False)
            .ask("What is 47 + 85?", schema=random_schema(3))
            .answer
            for loaded in (demo, guessing)
        ]
    assert answers[0] == answers[1]


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("thinking", [True, False])
def test_a_batch_answers_as_sessions_do(thinking: bool, demo: Engine) -> None:
    texts = [f"What is {number} + {2 * number}?" for number in range(41, 46)]
    options = {"thinking": thinking, "thinking_budget": 20, "sampling": {"max_tokens": 120, "seed": 1}}
    results = demo.generate_batch([asking(text) for text in texts], schema=Point, batch_size=3, **options)
    said = {result.index: (result.text, result.parsed, result.thinking_tokens) for result in results}
    alone = [demo.session(**options).ask(text, schema=Point) for text in texts]
    assert said == {
        index: (reply.answer, reply.parsed, reply.stats.thinking_tokens) for index, reply in enumerate(alone)
    }
    assert all(isinstance(parsed, Point) for _, parsed, _ in said.values())


def test_a_request_has_a_form_of_its_own(demo: Engine) -> None:
    class Never(Point):
        @field_validator("x")
        @classmethod
        def refuse(cls, value: int) -> int:
            raise ValueError("not today")

    numbers = {"type": "array", "items": {"type": "integer"}, "maxItems": 3}
    hi_in_parts = [{"type": "text", "text": "hi"}]
    requests = [
        BatchRequest(messages=asking("hi"), schema=numbers),
        BatchRequest(messages=asking("hi")),
        BatchRequest(messages=asking("hi"), schema={"type": "never"}),
        BatchRequest(prompt="hi", schema=numbers),
        BatchRequest(messages=asking("hi"), schema=Never),
        BatchRequest(messages=[{"role": "user"}], schema=numbers),
        BatchRequest(messages=["hi"], schema=numbers),
        BatchRequest(messages=[{"role": "assistant", "content": "hi"}], schema=numbers),
        BatchRequest(messages=[{"role": "user", "content": hi_in_parts}], schema=numbers),
    ]
    run = demo.generate_batch(requests, thinking=False, sampling={"max_tokens": 100, "seed": 1})
    lists, plain, unusable, text, refused, *bad, parts = sorted(run, key=lambda result: result.index)
    assert all(result.error for result in bad)
    assert (parts.text, parts.prompt_tokens) == (lists.text, lists.prompt_tokens)
    jsonschema.validate(lists.parsed, numbers)
    assert json.loads(lists.text) == lists.parsed
    assert plain.text
    assert plain.parsed is None
    assert "this schema cannot be used" in str(unusable.error)
    assert "a schema is for answers to messages" in str(text.error)
    assert "not today" in str(refused.error)
    assert refused.text
    with pytest.raises(SchemaError):
        demo.generate_batch(["hi"], schema={"type": "never"})
