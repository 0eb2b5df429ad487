"""Reads the body of /v1/responses into a ServerRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_qwen3.generation.params import RANGES
from mlx_qwen3.server.errors import RequestError
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.request import MORE_SAMPLING, ServerRequest, thinking_of_effort
from mlx_qwen3.server.responses.items import as_items, read_items
from mlx_qwen3.server.responses.store import ResponseStore
from mlx_qwen3.server.responses.tools import read_tool_choice, read_tools, told_choice

INCLUDED = (
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    # Of tools and inputs that there are none of here.
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
SUMMARIES = ("auto", "concise", "detailed")


def read_request(body: Mapping[str, Any], store: ResponseStore) -> ServerRequest:
    """The request of `POST /v1/responses`. Raises RequestError for what cannot be obeyed."""
    fields = Fields(body)
    items = as_items(fields.value("input", []))
    previous = fields.text("previous_response_id")
    if previous is None and not fields.has("input"):
        raise fields.error("input", "is missing")
    instructions = fields.text("instructions")
    messages = read_items(_earlier(store, previous), store.item, "previous_response_id")
    messages += read_items(items, store.item)
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    if not messages:
        raise fields.error("input", "is empty")
    tools = read_tools(fields)
    choice, name, functions = read_tool_choice(fields, tools)
    included = _included(fields)
    thinking, budget, reasoning = _reasoning(fields)
    schema, text = _text(fields)
    sampling = _sampling(fields, included)
    is_parallel = fields.flag("parallel_tool_calls", True)
    metadata = _metadata(fields)
    is_stored = fields.flag("store", True)
    stream = fields.flag("stream", False)
    model = fields.text("model")
    _refuse_what_cannot_be_done(fields)
    return ServerRequest(
        model=model,
        messages=messages,
        tools=functions,
        tool_choice=choice,
        tool_name=name,
        parallel_tool_calls=is_parallel,
        thinking=thinking,
        thinking_budget=budget,
        sampling=sampling,
        schema=schema,
        stream=stream,
        options={
            "items": items,
            "included": included,
            "namespaces": tools.namespaces,
            "has_summary": reasoning["summary"] is not None,
            "echo": {
                "instructions": instructions,
                "metadata": metadata,
                "max_output_tokens": sampling.get("max_tokens"),
                "parallel_tool_calls": is_parallel,
                "previous_response_id": previous,
                "reasoning": reasoning,
                "store": is_stored,
                "temperature": sampling.get("temperature"),
                "text": text,
                "tool_choice": told_choice(body.get("tool_choice")),
                "tools": tools.listed,
                "top_p": sampling.get("top_p"),
                "truncation": "disabled",
            },
        },
    )


def read_count_request(body: Mapping[str, Any], store: ResponseStore) -> ServerRequest:
    """The request of `POST /v1/responses/input_tokens`, which takes what a prompt is made of."""
    return read_request(dict(body), store)


def _earlier(store: ResponseStore, previous: str | None) -> list[Any]:
    if previous is None:
        return []
    conversation = store.conversation(previous)
    if conversation is None:
        raise RequestError(
            404,
            f"there is no stored response {previous[:80]!r}; send the whole conversation as input",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return conversation


def _included(fields: Fields) -> list[str]:
    included = fields.list("include", [])
    for item in included:
        if item not in INCLUDED:
            raise fields.error("include", f"has {item!r:.60}, which is not one of {', '.join(INCLUDED)}")
    return list(included)


def _reasoning(fields: Fields) -> tuple[bool | None, int | None, dict[str, Any]]:
    """Whether to think, the budget, and the field as the response repeats it."""
    config = fields.object("reasoning")
    told: dict[str, Any] = {"effort": None, "summary": None}
    if config is None:
        return None, None, told
    effort = config.text("effort")
    older = config.choice("generate_summary", SUMMARIES)
    told |= {"effort": effort, "summary": config.choice("summary", (*SUMMARIES, "none"), older)}
    if told["summary"] == "none":
        told["summary"] = None
    config.only("mode", "standard")
    config.skip("context")  # the chat template decides which thinking of earlier turns the model reads
    config.finish()
    if effort is None:
        return None, None, told
    thinking, budget = thinking_of_effort(effort, "reasoning.effort")
    return thinking, budget, told


def _text(fields: Fields) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    """The schema of the answer, and the field as the response repeats it."""
    config = fields.object("text")
    plain: dict[str, Any] = {"format": {"type": "text"}}
    if config is None:
        return None, plain
    config.skip("verbosity")  # a hint of style, which the model was not trained for
    form = config.object("format")
    config.finish()
    if form is None:
        return None, plain
    kind = form.choice("type", ["text", "json_object", "json_schema"], "text")
    if kind == "text":
        form.finish()
        return None, plain
    if kind == "json_object":
        form.finish()
        return {"type": "object"}, {"format": {"type": "json_object"}}
    schema: Mapping[str, Any] | None = form.mapping("schema")
    if schema is None:
        raise form.error("schema", "is missing")
    name = form.text("name", "answer")
    told = {"type": "json_schema", "name": name, "schema": schema, "strict": form.flag("strict", True)}
    form.skip("description")
    form.finish()
    return schema, {"format": told}


def _sampling(fields: Fields, included: list[str]) -> dict[str, Any]:
    top = fields.integer("top_logprobs", low=0, high=20)
    sampling = {
        "temperature": fields.number("temperature", low=0, high=2),
        "top_p": fields.number("top_p", low=0, high=1),
        "max_tokens": fields.integer("max_output_tokens", low=1),
        "top_k": fields.integer("top_k", low=0),
        "seed": fields.integer("seed"),
        **{name: fields.number(name, None, *RANGES[name]) for name in MORE_SAMPLING},
    }
    if "message.output_text.logprobs" in included or top:
        sampling |= {"logprobs": True, "top_logprobs": top or 0}
    return {name: value for name, value in sampling.items() if value is not None}


def _metadata(fields: Fields) -> dict[str, str]:
    metadata: dict[str, str] = fields.mapping("metadata", {})
    if len(metadata) > 16 or not all(isinstance(value, str) for value in metadata.values()):
        raise fields.error("metadata", "must have at most 16 keys, and strings as values")
    return metadata


def _refuse_what_cannot_be_done(fields: Fields) -> None:
    fields.only("background", False)
    fields.only("conversation")
    fields.only("prompt")
    fields.only("context_management", [])
    fields.only("truncation", "disabled")
    fields.skip(
        # They concern the account, or a cache that is automatic here, or tools that OpenAI's servers run.
        *("user", "safety_identifier", "service_tier", "client_metadata", "prompt_cache_key"),
        *("prompt_cache_retention", "max_tool_calls", "stream_options"),
    )
    fields.finish()
