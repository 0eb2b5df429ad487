"""LangChain's client for OpenAI's APIs."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field
from task import API, QUESTION, RESULT, SUM, TIME, check
from task import get_time as plain_get_time


class Sum(BaseModel):
    """The result of an addition."""

    sum: int = Field(ge=0, le=999)


@tool
def get_time(city: str) -> str:
    """Get the current time in a city"""
    return plain_get_time(city)


for uses_responses in (False, True):
    name = "responses" if uses_responses else "chat"
    model = ChatOpenAI(
        model="demo",
        base_url=API,
        api_key="none",
        temperature=0,
        max_retries=0,
        use_responses_api=uses_responses,
    )
    check(f"{name}: chat", RESULT in model.invoke(SUM).text, model.invoke(SUM))
    check(f"{name}: stream", RESULT in "".join(chunk.text for chunk in model.stream(SUM)))
    bound = model.bind_tools([get_time])
    messages = [HumanMessage(QUESTION)]
    messages.append(bound.invoke(messages))
    check(f"{name}: calls", messages[-1].tool_calls, messages[-1])
    messages += [
        ToolMessage(get_time.invoke(call["args"]), tool_call_id=call["id"])
        for call in messages[-1].tool_calls
    ]
    answer = bound.invoke(messages)
    check(f"{name}: tools to the end", TIME in answer.text, answer)
    parsed = model.with_structured_output(Sum, method="json_schema").invoke(SUM)
    check(f"{name}: schema", isinstance(parsed, Sum), parsed)
