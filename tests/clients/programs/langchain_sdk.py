"""LangChain's client for OpenAI's APIs."""

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field
from task import API, ENDLESS, LONG, QUESTION, RESULT, SUM, TIME, check, is_idle
from task import get_time as plain_get_time


class Sum(BaseModel):
    """The result of an addition."""

    sum: int = Field(ge=0, le=999)


@tool
def get_time(city: str) -> str:
    """Get the current time in a city"""
    return plain_get_time(city)


FIELDS = {"model": "demo", "base_url": API, "api_key": "none", "max_retries": 0}
for uses_responses in (False, True):
    name = "responses" if uses_responses else "chat"
    model = ChatOpenAI(temperature=0, use_responses_api=uses_responses, **FIELDS)
    answer = model.invoke(SUM)
    check(f"{name}: chat", RESULT in answer.text, answer)
    check(f"{name}: stream", RESULT in "".join(chunk.text for chunk in model.stream(SUM)))
    bound = model.bind_tools([get_time])
    messages = [HumanMessage(QUESTION)]
    messages.append(bound.invoke(messages))
    check(f"{name}: calls", messages[-1].tool_calls, messages[-1])
    streamed = None
    for chunk in bound.stream(messages[:1]):
        streamed = chunk if streamed is None else streamed + chunk
    check(f"{name}: calls, streamed", streamed.tool_calls, streamed)
    messages += [
        ToolMessage(get_time.invoke(call["args"]), tool_call_id=call["id"])
        for call in messages[-1].tool_calls
    ]
    answer = bound.invoke(messages)
    check(f"{name}: tools to the end", TIME in answer.text, answer)
    parsed = model.with_structured_output(Sum, method="json_schema").invoke(SUM)
    check(f"{name}: schema", isinstance(parsed, Sum), parsed)
    try:
        model.bind(extra_body={"frobnicate": 1}).invoke(SUM)
    except openai.BadRequestError as error:
        check(f"{name}: error", "frobnicate" in str(error), error)
    else:
        check(f"{name}: error", False)

# Without a look at the length it sends texts; else ids of another tokenizer, which it fetches.
embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **FIELDS)
check("embeddings", len({len(vector) for vector in embeddings.embed_documents(["hi", "hello there"])}) == 1)
model = ChatOpenAI(extra_body=ENDLESS, use_responses_api=False, **FIELDS)
running = model.stream(LONG)
next(running)
running.close()
check("cancel", is_idle())
check("chat after a cancel", RESULT in ChatOpenAI(temperature=0, **FIELDS).invoke(SUM).text)
