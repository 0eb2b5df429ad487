"""Pydantic AI, over OpenAI's chat and responses and over Anthropic's API."""

import asyncio

import anthropic
from pydantic import BaseModel, Field
from pydantic_ai import Agent, Embedder, ModelHTTPError
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from task import API, ENDLESS, LONG, QUESTION, RESULT, SUM, TIME, URL, check, get_time, is_idle

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
    async with agent.run_stream(QUESTION) as running:
        check(f"{name}: tools to the end, streamed", TIME in await running.get_output())
    try:
        await plain.run(SUM, model_settings={**settings, "extra_body": {"frobnicate": 1}})
    except ModelHTTPError as error:
        check(f"{name}: error", error.status_code == 400 and "frobnicate" in str(error), error)
    else:
        check(f"{name}: error", False)
    endless = {} if name != "chat" else {"extra_body": ENDLESS}
    async with plain.run_stream(LONG, model_settings={**settings, **endless}) as running:
        async for _ in running.stream_text():
            break
    check(f"{name}: cancel", is_idle())
    if name != "anthropic":  # its profile has no native output for a model of this name
        answer = await Agent(model, output_type=NativeOutput(Sum)).run(SUM)
        check(f"{name}: schema", isinstance(answer.output, Sum), answer)


async def main():
    for name, (model, settings) in MODELS.items():
        await run(name, model, settings)
    embedder = Embedder(OpenAIEmbeddingModel("demo", provider=openai_provider))
    found = await embedder.embed_documents(["hi", "hello there"])
    check("embeddings", len(found.embeddings) == 2, found)


asyncio.run(main())
