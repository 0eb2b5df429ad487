"""LiteLLM, by its routes to OpenAI's and to Anthropic's API."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches prices from another server

import litellm
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
    URL,
    check,
    get_time,
    is_idle,
)

litellm.suppress_debug_info = True
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "allowed_openai_params": ["thinking"]}
TOOL = {
    "type": "function",
    "function": {"name": "get_time", "description": DESCRIPTION, "parameters": PARAMETERS},
}
ROUTES = {
    "openai": {"model": "openai/demo", "api_base": API, "api_key": "none"},
    "anthropic": {"model": "anthropic/demo", "api_base": URL, "api_key": "none", "max_tokens": 1000},
}

for name, route in ROUTES.items():
    fields = route | {"temperature": 0}
    thinking = {} if name == "openai" else THINKING
    messages = [{"role": "user", "content": SUM}]
    answer = litellm.completion(messages=messages, **route, **thinking)
    check(f"{name}: chat", RESULT in answer.choices[0].message.content, answer)
    check(f"{name}: reasoning", answer.choices[0].message.reasoning_content, answer)
    chunks = list(litellm.completion(messages=messages, stream=True, **route, **thinking))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check(f"{name}: stream", RESULT in text, text)

    messages = [{"role": "user", "content": QUESTION}]
    message = litellm.completion(messages=messages, tools=[TOOL], **fields).choices[0].message
    check(f"{name}: calls", message.tool_calls, message)
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls:
        result = get_time(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = litellm.completion(messages=messages, tools=[TOOL], **fields)
    check(f"{name}: tools to the end", TIME in answer.choices[0].message.content, answer)
    chunks = list(litellm.completion(messages=messages[:1], tools=[TOOL], stream=True, **fields))
    streamed = litellm.stream_chunk_builder(chunks).choices[0].message
    check(f"{name}: calls, streamed", json.loads(streamed.tool_calls[0].function.arguments), streamed)

form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
answer = litellm.completion(
    messages=[{"role": "user", "content": SUM}], response_format=form, **ROUTES["openai"], max_tokens=400
)
check("schema", isinstance(json.loads(answer.choices[0].message.content)["sum"], int), answer)
try:
    litellm.completion(
        messages=[{"role": "user", "content": SUM}], **ROUTES["openai"] | {"presence_penalty": 9}
    )
except litellm.BadRequestError as error:
    check("error", "presence_penalty" in str(error), error)
else:
    check("error", False)

found = litellm.embedding(model="openai/demo", input=["hi", "hello there"], api_base=API, api_key="none")
check("embeddings", len(found.data) == 2 and len(found.data[0]["embedding"]) > 8, found)

messages = [{"role": "user", "content": LONG}]
running = litellm.completion(messages=messages, stream=True, extra_body=ENDLESS, **ROUTES["openai"])
next(iter(running))
running.completion_stream.close()
check("cancel", is_idle())
answer = litellm.completion(messages=[{"role": "user", "content": SUM}], **ROUTES["openai"])
check("chat after a cancel", RESULT in answer.choices[0].message.content, answer)
