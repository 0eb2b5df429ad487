"""OpenAI's client: chat completions and responses."""

import json

import openai
from task import (
    API,
    DESCRIPTION,
    ENDLESS,
    LONG,
    PARAMETERS,
    QUESTION,
    RESULT,
    SCHEMA,
    SUM,
    TIME,
    check,
    get_time,
    is_idle,
)

client = openai.OpenAI(base_url=API, api_key="none", max_retries=0)
TOOL = {
    "type": "function",
    "function": {"name": "get_time", "description": DESCRIPTION, "parameters": PARAMETERS},
}
RESPONSE_TOOL = {"type": "function", "strict": False, **TOOL["function"]}


def ask(**fields):
    return client.chat.completions.create(**{"model": "demo", "temperature": 0, "seed": 1} | fields)


def chat():
    message = ask(messages=[{"role": "user", "content": SUM}]).choices[0].message
    check("chat", RESULT in message.content, message)
    check("reasoning", message.reasoning_content, message)


def stream():
    chunks = list(
        ask(messages=[{"role": "user", "content": SUM}], stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check("stream", RESULT in text, text)
    check("usage of the stream", chunks[-1].usage.completion_tokens > 0, chunks[-1])


def tools():
    messages = [{"role": "user", "content": QUESTION}]
    choice = ask(messages=messages, tools=[TOOL]).choices[0]
    check("calls", choice.finish_reason == "tool_calls" and choice.message.tool_calls, choice)
    messages.append(choice.message.model_dump(exclude_none=True))
    for call in choice.message.tool_calls:
        result = get_time(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = ask(messages=messages, tools=[TOOL])
    check("tools to the end", TIME in answer.choices[0].message.content, answer)
    check("cached tokens", answer.usage.prompt_tokens_details.cached_tokens > 0, answer.usage)


def stream_of_tools():
    with client.chat.completions.stream(
        model="demo", temperature=0, messages=[{"role": "user", "content": QUESTION}],
        tools=[TOOL | {"function": TOOL["function"] | {"strict": True}}],
    ) as running:  # fmt: skip
        for _ in running:
            pass
        calls = running.get_final_completion().choices[0].message.tool_calls
    check("stream of tools", json.loads(calls[0].function.arguments)["city"], calls)


def required_and_schema():
    named = {"type": "function", "function": {"name": "get_time"}}
    for choice in ("required", named):
        calls = (
            ask(messages=[{"role": "user", "content": "hi"}], tools=[TOOL], tool_choice=choice)
            .choices[0]
            .message
        )
        check(f"tool_choice {choice if isinstance(choice, str) else 'by name'}", calls.tool_calls, calls)
    form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
    answer = ask(messages=[{"role": "user", "content": SUM}], response_format=form, max_tokens=400)
    check("schema", isinstance(json.loads(answer.choices[0].message.content)["sum"], int), answer)


def completion():
    answer = client.completions.create(model="demo", prompt="Hello", max_tokens=8, logprobs=2, seed=1)
    check("completion", answer.choices[0].text and answer.choices[0].logprobs, answer)
    check("models", "demo" in [model.id for model in client.models.list()])


def errors():
    for name, fields in (
        ("presence_penalty", {"presence_penalty": 9}),
        ("frobnicate", {"extra_body": {"frobnicate": 1}}),
    ):
        try:
            ask(messages=[{"role": "user", "content": "hi"}], **fields)
        except openai.BadRequestError as error:
            check(f"error {name}", name in str(error), error)
        else:
            check(f"error {name}", False)


def embeddings():
    found = client.embeddings.create(model="demo", input=["hi", "hello there"], dimensions=32)
    lengths = [sum(number**2 for number in item.embedding) for item in found.data]
    check("embeddings", all(abs(length - 1) < 1e-3 for length in lengths) and len(lengths) == 2, lengths)


def cancel():
    running = ask(messages=[{"role": "user", "content": LONG}], stream=True, extra_body=ENDLESS)
    next(iter(running))
    running.close()
    check("cancel", is_idle())
    check(
        "chat after a cancel",
        RESULT in ask(messages=[{"role": "user", "content": SUM}]).choices[0].message.content,
    )


def responses():
    first = client.responses.create(model="demo", input=QUESTION, tools=[RESPONSE_TOOL], temperature=0)
    calls = [item for item in first.output if item.type == "function_call"]
    check("responses: calls", calls, first)
    outputs = [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": get_time(**json.loads(call.arguments)),
        }
        for call in calls
    ]
    second = client.responses.create(
        model="demo", input=outputs, previous_response_id=first.id, tools=[RESPONSE_TOOL], temperature=0
    )
    check("responses: tools to the end", TIME in second.output_text, second)
    with client.responses.stream(model="demo", input=SUM, temperature=0) as running:
        for _ in running:
            pass
        check("responses: stream", RESULT in running.get_final_response().output_text)
    form = {"format": {"type": "json_schema", "name": "sum", "schema": SCHEMA, "strict": True}}
    answer = client.responses.create(model="demo", input=SUM, text=form, max_output_tokens=400)
    check("responses: schema", isinstance(json.loads(answer.output_text)["sum"], int), answer)
    check("responses: stored", client.responses.retrieve(second.id).output_text == second.output_text)
    client.responses.delete(second.id)
    try:
        client.responses.retrieve(second.id)
    except openai.NotFoundError:
        check("responses: deleted", True)


for step in (
    chat,
    stream,
    tools,
    stream_of_tools,
    required_and_schema,
    completion,
    errors,
    embeddings,
    cancel,
    responses,
):
    step()
