"""OpenAI's Agents SDK, over responses and over chat completions."""

import asyncio

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from pydantic import BaseModel, Field
from task import API, ENDLESS, LONG, QUESTION, RESULT, SUM, TIME, check, is_idle
from task import get_time as plain_get_time

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=API, api_key="none", max_retries=0)
get_time = function_tool(plain_get_time)
SETTINGS = ModelSettings(temperature=0)


class Sum(BaseModel):
    sum: int = Field(ge=0, le=999)


async def main():
    for name, kind in (("responses", OpenAIResponsesModel), ("chat", OpenAIChatCompletionsModel)):
        model = kind(model="demo", openai_client=client)
        plain = Agent(name="plain", model=model, model_settings=SETTINGS)
        answer = await Runner.run(plain, SUM)
        check(f"{name}: chat", RESULT in answer.final_output, answer)
        agent = Agent(name="clock", model=model, tools=[get_time], model_settings=SETTINGS)
        answer = await Runner.run(agent, QUESTION)
        check(f"{name}: tools to the end", TIME in answer.final_output, answer)
        running = Runner.run_streamed(agent, QUESTION)
        async for _ in running.stream_events():
            pass
        check(f"{name}: stream with tools", TIME in running.final_output, running)
        answer = await Runner.run(
            Agent(name="sum", model=model, output_type=Sum, model_settings=SETTINGS), SUM
        )
        check(f"{name}: schema", isinstance(answer.final_output, Sum), answer)
        wrong = ModelSettings(extra_body={"frobnicate": 1})
        try:
            await Runner.run(Agent(name="wrong", model=model, model_settings=wrong), SUM)
        except openai.BadRequestError as error:
            check(f"{name}: error", "frobnicate" in str(error), error)
        else:
            check(f"{name}: error", False)
        endless = ModelSettings(extra_body=ENDLESS if name == "chat" else None)
        running = Runner.run_streamed(Agent(name="endless", model=model, model_settings=endless), LONG)
        async for _ in running.stream_events():
            running.cancel()
        check(f"{name}: cancel", is_idle())
        answer = await Runner.run(plain, SUM)
        check(f"{name}: chat after a cancel", RESULT in answer.final_output, answer)


asyncio.run(main())
