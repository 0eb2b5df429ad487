"""Pydantic AI, over OpenAI's chat and responses and over Anthropic's API."""

import asyncio

import anthropic
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from task import API, QUESTION, RESULT, SUM, TIME, URL, check, get_time

openai_provider = OpenAIProvider(base_url=API, api_key="none")
anthropic_client = anthropic.AsyncAnthropic(base_url=URL, api_key="none", max_retries=0)
THINKING = {"anthropic_thinking": {"type": "enabled", "budget_tokens": 1024}}
MODELS = {
    "chat": (OpenAIChatModel("demo", provider=openai_provider), {}),
    "responses": (OpenAIResponsesModel("demo", provider=openai_provider), {}),
    "anthropic": (
        AnthropicModel("demo", provider=AnthropicProvider(anthropic_client=anthropic_client)),
        THINKING,
    ),
}


class Sum(BaseModel):
    sum: int = Field(ge=0, le=999)


async def run(name, model, settings):
    plain = Agent(model, model_settings=settings)
    answer = await plain.run(SUM)
    check(f"{name}: chat", RESULT in answer.output, answer)
    async with plain.run_stream(SUM) as running:
        check(f"{name}: stream", RESULT in await running.get_output())
    agent = Agent(model, model_settings=settings)
    agent.tool_plain(get_time)
    answer = await agent.run(QUESTION)
    check(f"{name}: tools to the end", TIME in answer.output, answer)
    if name != "anthropic":  # its profile has no native output for a model of this name
        answer = await Agent(model, output_type=NativeOutput(Sum)).run(SUM)
        check(f"{name}: schema", isinstance(answer.output, Sum), answer)


async def main():
    for name, (model, settings) in MODELS.items():
        await run(name, model, settings)


asyncio.run(main())
