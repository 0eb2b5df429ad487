"""The bodies of requests of Anthropic's API and of the Responses API, as JSON schemas."""

from __future__ import annotations

from mlx_qwen3.server.anthropic.read import MAX_TOOLS
from mlx_qwen3.server.openapi.requests import EFFORT
from mlx_qwen3.server.openapi.schemas import (
    ANY,
    FLAG,
    MAPPING,
    NUMBER,
    TEXT,
    Schema,
    a_list,
    a_word,
    an_object,
    one_of,
    only,
    or_null,
    parameter,
    skipped,
    whole,
)
from mlx_qwen3.server.request import MORE_SAMPLING
from mlx_qwen3.server.responses.read import INCLUDED, SUMMARIES

_MORE = {name: parameter(name) for name in MORE_SAMPLING}
_CACHED = skipped(("cache_control",))
_NOT_EMPTY: Schema = {**TEXT, "minLength": 1}

# Anthropic

_TEXT_BLOCK = an_object({"type": a_word("text"), "text": TEXT}, {**_CACHED, **skipped(("citations",))})
_SYSTEM_BLOCK = an_object({"text": TEXT}, {"type": a_word("text"), **_CACHED, **skipped(("citations",))})
_UNSEEN: Schema = {
    "type": "object",
    "properties": {"type": a_word("image", "document")},
    "required": ["type"],
}
_TOOL_USE = an_object(
    {"type": a_word("tool_use"), "id": TEXT, "name": TEXT},
    {
        "input": MAPPING,
        "caller": an_object({}, {"type": a_word("direct")}),
        "toolset_name": only(),
        **_CACHED,
    },
)
_TOOL_RESULT = an_object(
    {"type": a_word("tool_result"), "tool_use_id": TEXT},
    {
        "content": one_of(TEXT, a_list(one_of(_TEXT_BLOCK, _UNSEEN))),
        "is_error": FLAG,
        "toolset_name": only(),
        **_CACHED,
    },
)
_THINKING_BLOCK = an_object(
    {"type": a_word("thinking")}, {"thinking": TEXT, **skipped(("signature",)), **_CACHED}
)
_REDACTED: Schema = {
    "type": "object",
    "properties": {"type": a_word("redacted_thinking")},
    "required": ["type"],
}


def _said_by(role: str, *blocks: Schema) -> Schema:
    content = one_of(TEXT, a_list(one_of(*blocks)))
    return an_object({"role": a_word(role), "content": content}, _CACHED)


_ANTHROPIC_PROMPT: dict[str, Schema] = {
    "model": TEXT,
    "messages": a_list(
        one_of(
            _said_by("user", _TEXT_BLOCK, _TOOL_RESULT),
            _said_by("system", _SYSTEM_BLOCK),
            _said_by("assistant", _TEXT_BLOCK, _THINKING_BLOCK, _TOOL_USE, _REDACTED),
        ),
        least=1,
    ),
}
_ANTHROPIC_TOOL = an_object(
    {"name": _NOT_EMPTY, "input_schema": MAPPING},
    {
        "type": a_word("custom"),
        "description": TEXT,
        "input_examples": a_list(ANY),
        "defer_loading": only(False),
        "allowed_callers": only(["direct"]),
        **skipped(("cache_control", "strict", "eager_input_streaming")),
    },
)
_FORMAT = an_object({"schema": MAPPING}, {"type": a_word("json_schema"), **skipped(("name", "strict"))})
_EDIT: Schema = {
    "type": "object",
    "properties": {"type": {"type": "string", "pattern": "^clear_(thinking|tool_uses)_"}},
    "required": ["type"],
}
_DISPLAY = {"display": a_word("summarized", "full", "omitted")}
_PARALLEL = {"disable_parallel_tool_use": FLAG}
_ANTHROPIC_OPTIONS: dict[str, Schema] = {
    "system": one_of(TEXT, a_list(_SYSTEM_BLOCK)),
    "tools": a_list(_ANTHROPIC_TOOL, most=MAX_TOOLS),
    "tool_choice": one_of(
        an_object({"type": a_word("auto", "none", "any")}, _PARALLEL),
        an_object({"type": a_word("tool"), "name": TEXT}, _PARALLEL),
    ),
    "thinking": one_of(
        an_object({"type": a_word("enabled"), "budget_tokens": whole(1)}, _DISPLAY),
        an_object({"type": a_word("adaptive", "between_tools")}, _DISPLAY),
        an_object({"type": a_word("disabled")}, {**skipped(("budget_tokens",)), **_DISPLAY}),
    ),
    "output_config": an_object({}, {"effort": EFFORT, "format": _FORMAT}),
    "output_format": _FORMAT,
    "context_management": an_object({}, {"edits": a_list(_EDIT)}),
    "container": only(),
    "mcp_servers": only([]),
    "speed": only("standard", "fast"),
    "service_tier": only("auto", "standard_only"),
    **skipped(
        ("metadata", "cache_control", "inference_geo", "user_profile_id", "workspace_id", "diagnostics")
    ),
}
MESSAGES = an_object(
    {**_ANTHROPIC_PROMPT, "max_tokens": whole(1)},
    {
        **_ANTHROPIC_OPTIONS,
        "temperature": parameter("temperature"),
        "top_p": parameter("top_p"),
        "top_k": whole(0),
        "seed": whole(),
        **_MORE,
        "stop_sequences": a_list(TEXT),
        "stream": FLAG,
    },
)
MESSAGE_TOKENS = an_object(_ANTHROPIC_PROMPT, _ANTHROPIC_OPTIONS)

# Responses

_NAMED = {"id": TEXT, "status": TEXT}
_PART_REST = {"annotations": a_list(ANY), "logprobs": a_list(ANY), **skipped(("prompt_cache_breakpoint",))}
_PART = one_of(
    an_object({"text": TEXT}, {"type": a_word("input_text", "output_text", "text"), **_PART_REST}),
    an_object({"type": a_word("refusal"), "refusal": TEXT}, _PART_REST),
)
_UNSEEN_PART: Schema = {
    "type": "object",
    "properties": {"type": a_word("input_image", "input_file")},
    "required": ["type"],
}
_TEXTS = a_list({"type": "object", "properties": {"text": or_null(TEXT)}})
_ITEM = one_of(
    an_object(
        {
            "role": a_word("user", "assistant", "system", "developer"),
            "content": one_of(TEXT, a_list(_PART)),
        },
        {"type": a_word("message"), **skipped(("phase",)), **_NAMED},
    ),
    an_object(
        {"type": a_word("reasoning")},
        {"content": _TEXTS, "summary": _TEXTS, "encrypted_content": TEXT, **_NAMED},
    ),
    an_object(
        {"type": a_word("function_call"), "call_id": TEXT, "name": TEXT},
        {"arguments": TEXT, **skipped(("namespace", "caller", "async")), **_NAMED},
    ),
    an_object(
        {"type": a_word("function_call_output"), "call_id": TEXT},
        {
            "output": one_of(TEXT, a_list(one_of(_PART, _UNSEEN_PART))),
            **skipped(("name", "namespace", "caller")),
            **_NAMED,
        },
    ),
    {
        "type": "object",
        "properties": {"type": a_word("item_reference"), "id": TEXT},
        "required": ["type", "id"],
    },
)
_FUNCTION = {
    "description": TEXT,
    "parameters": MAPPING,
    "defer_loading": only(False),
    "allowed_callers": only(["direct"]),
    "strict": FLAG,
    **skipped(("output_schema",)),
}
_A_FUNCTION = an_object({"type": a_word("function"), "name": _NOT_EMPTY}, _FUNCTION)
_RESPONSES_TOOL = one_of(
    _A_FUNCTION,
    an_object(
        {"type": a_word("namespace")},
        {"name": TEXT, "description": TEXT, "tools": a_list(_A_FUNCTION)},
    ),
    {
        "type": "object",
        "properties": {"type": {"type": "string", "pattern": "^web_search"}},
        "required": ["type"],
    },
)
_RESPONSES_CHOICE = one_of(
    a_word("auto", "none", "required"),
    an_object({"type": a_word("function"), "name": TEXT}, skipped(("namespace",))),
    an_object(
        {"type": a_word("allowed_tools")},
        {
            "mode": a_word("auto", "required"),
            "tools": a_list(an_object({"name": TEXT}, {"type": a_word("function")})),
        },
    ),
)
_TEXT_FORMAT = one_of(
    an_object({}, {"type": a_word("text", "json_object")}),
    an_object(
        {"type": a_word("json_schema"), "schema": MAPPING},
        {"name": TEXT, "strict": FLAG, **skipped(("description",))},
    ),
)
RESPONSES = an_object(
    {},
    {
        "input": one_of(TEXT, a_list(_ITEM)),
        "model": TEXT,
        "previous_response_id": TEXT,
        "instructions": TEXT,
        "tools": a_list(_RESPONSES_TOOL, most=MAX_TOOLS),
        "tool_choice": _RESPONSES_CHOICE,
        "parallel_tool_calls": FLAG,
        "include": a_list(a_word(*INCLUDED)),
        "reasoning": an_object(
            {},
            {
                "effort": EFFORT,
                "summary": a_word(*SUMMARIES, "none"),
                "generate_summary": a_word(*SUMMARIES),
                "mode": only("standard"),
                **skipped(("context",)),
            },
        ),
        "text": an_object({}, {"format": _TEXT_FORMAT, **skipped(("verbosity",))}),
        "temperature": {**NUMBER, "minimum": 0, "maximum": 2},
        "top_p": {**NUMBER, "minimum": 0, "maximum": 1},
        "max_output_tokens": whole(1),
        "top_k": whole(0),
        "seed": whole(),
        "top_logprobs": whole(0, 20),
        **_MORE,
        "metadata": {"type": "object", "maxProperties": 16, "additionalProperties": TEXT},
        "store": FLAG,
        "stream": FLAG,
        "background": only(False),
        "conversation": only(),
        "prompt": only(),
        "context_management": only([]),
        "truncation": only("disabled"),
        **skipped(
            (
                *("user", "safety_identifier", "service_tier", "client_metadata", "prompt_cache_key"),
                *("prompt_cache_retention", "max_tool_calls", "stream_options"),
            )
        ),
    },
)
# The conversation goes on from a stored one, or begins with what is given.
RESPONSES["anyOf"] = [
    {"required": ["input"], "properties": {"input": {"not": {"type": "null"}}}},
    {"required": ["previous_response_id"], "properties": {"previous_response_id": TEXT}},
]
