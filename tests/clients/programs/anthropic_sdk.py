"""Anthropic's client."""

import json

import anthropic
from task import (
    DESCRIPTION,
    LONG,
    PARAMETERS,
    QUESTION,
    RESULT,
    SCHEMA,
    SUM,
    TIME,
    URL,
    check,
    get_time,
    is_idle,
)

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
TOOL = {"name": "get_time", "description": DESCRIPTION, "input_schema": PARAMETERS}
FIELDS = {"model": "demo", "max_tokens": 1000, "extra_body": {"seed": 1}}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def chat():
    message = client.messages.create(messages=[{"role": "user", "content": SUM}], thinking=THINKING, **FIELDS)
    check("chat", RESULT in text_of(message), message)
    check("thinking", message.content[0].type == "thinking" and message.content[0].signature, message)
    count = client.messages.count_tokens(model="demo", messages=[{"role": "user", "content": SUM}])
    check("count of tokens", count.input_tokens > 5, count)


def stream():
    with client.messages.stream(
        messages=[{"role": "user", "content": SUM}], thinking=THINKING, **FIELDS
    ) as running:
        text = "".join(running.text_stream)
        message = running.get_final_message()
    check("stream", RESULT in text and message.stop_reason == "end_turn", message)


def tools():
    messages = [{"role": "user", "content": QUESTION}]
    for thinking in (THINKING, {"type": "disabled"}):
        with client.messages.stream(
            messages=messages[:1], tools=[TOOL], thinking=thinking, **FIELDS
        ) as running:
            message = running.get_final_message()
        check(f"calls, thinking {thinking['type']}", message.stop_reason == "tool_use", message)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": get_time(**block.input)}
            for block in message.content
            if block.type == "tool_use"
        ]
        following = [
            *messages[:1],
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": results},
        ]
        answer = client.messages.create(messages=following, tools=[TOOL], thinking=thinking, **FIELDS)
        check("tools to the end", TIME in text_of(answer), answer)
        check("cached tokens", answer.usage.cache_read_input_tokens > 0, answer.usage)


def required_and_schema():
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_time"}):
        message = client.messages.create(
            messages=[{"role": "user", "content": "hi"}], tools=[TOOL], tool_choice=choice, **FIELDS
        )
        check(f"tool_choice {choice['type']}", message.stop_reason == "tool_use", message)
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    message = client.messages.create(
        messages=[{"role": "user", "content": SUM}], output_config=form, **FIELDS
    )
    check("schema", isinstance(json.loads(text_of(message))["sum"], int), message)
    begun = [{"role": "user", "content": SUM}, {"role": "assistant", "content": "47 + 85 ="}]
    message = client.messages.create(messages=begun, **FIELDS)
    check("a begun answer is continued", text_of(message) and "47 + 85" not in text_of(message), message)


def errors():
    try:
        client.messages.create(
            messages=[{"role": "user", "content": SUM}], **FIELDS | {"extra_body": {"frobnicate": 1}}
        )
    except anthropic.BadRequestError as error:
        check(
            "error",
            error.body["error"]["type"] == "invalid_request_error" and "frobnicate" in str(error),
            error,
        )
    else:
        check("error", False)


def cancel():
    with client.messages.stream(
        messages=[{"role": "user", "content": LONG}], **FIELDS | {"max_tokens": 5000}
    ) as running:
        next(iter(running))
    check("cancel", is_idle())
    message = client.messages.create(messages=[{"role": "user", "content": SUM}], thinking=THINKING, **FIELDS)
    check("chat after a cancel", RESULT in text_of(message), message)


for step in (chat, stream, tools, required_and_schema, errors, cancel):
    step()
