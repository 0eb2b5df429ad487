"""The bodies of requests, as JSON schemas: every field that the readers take, and no other."""

from __future__ import annotations

from mlx_qwen3.generation.params import MAX_STOPS, MAX_TOP_LOGPROBS
from mlx_qwen3.server.openai.completions import MOST_LOGPROBS
from mlx_qwen3.server.openai.messages import BOOKKEEPING as OF_MESSAGES
from mlx_qwen3.server.openai.messages import TOOL_NAME
from mlx_qwen3.server.openai.retrieval import MOST_TEXTS
from mlx_qwen3.server.openai.sampling import BOOKKEEPING, NUMBERS
from mlx_qwen3.server.openapi.schemas import (
    FLAG,
    MAPPING,
    TEXT,
    TOKEN_IDS,
    Schema,
    a_list,
    a_word,
    an_object,
    one_of,
    only,
    parameter,
    skipped,
    whole,
)
from mlx_qwen3.server.request import EFFORTS

MODEL = {"model": TEXT}
EFFORT = a_word(*EFFORTS)
LIMIT: Schema = {**whole(-1, 10**9), "not": {"const": 0}}
NAME: Schema = {"type": "string", "pattern": f"^{TOOL_NAME.pattern}$"}

SAMPLING: dict[str, Schema] = {
    **{field: parameter(name) for field, name in NUMBERS.items()},
    "top_k": whole(-1, 10**9),
    "min_tokens": whole(0, 10**9),
    "seed": whole(-(2**63), 2**63),
    "stop": one_of(TEXT, a_list(TEXT, most=MAX_STOPS)),
    "logit_bias": {
        "type": "object",
        "patternProperties": {"^[0-9]{1,9}$": {"type": "number", "minimum": -100, "maximum": 100}},
        "additionalProperties": False,
    },
}
STREAM_OPTIONS = {"include_usage": FLAG, "include_obfuscation": FLAG}

# Chats

_PART = one_of(
    TEXT,
    an_object(
        {"text": TEXT},
        {
            "type": a_word("text", "input_text", "output_text"),
            **skipped(("cache_control", "annotations", "logprobs", "prompt_cache_breakpoint")),
        },
    ),
)
_CONTENT = one_of(TEXT, a_list(_PART))
_FUNCTION_CALL = an_object({"name": {**TEXT, "minLength": 1}}, {"arguments": one_of(TEXT, MAPPING)})
_CALL = an_object(
    {"function": _FUNCTION_CALL},
    {
        "id": TEXT,
        "type": only("function"),
        **skipped(("index", "extra_content", "provider_specific_fields")),
    },
)
_OF_ANY_MESSAGE = {"name": TEXT, **skipped(OF_MESSAGES)}
_MESSAGE = one_of(
    an_object(
        {"role": a_word("system", "developer", "user", "function"), "content": _CONTENT}, _OF_ANY_MESSAGE
    ),
    an_object({"role": a_word("tool")}, {"content": _CONTENT, "tool_call_id": TEXT, **_OF_ANY_MESSAGE}),
    an_object(
        {"role": a_word("assistant")},
        {
            "content": _CONTENT,
            **dict.fromkeys(("reasoning_content", "reasoning", "thinking", "refusal"), TEXT),
            "tool_calls": a_list(_CALL),
            "function_call": _FUNCTION_CALL,
            "prefix": FLAG,
            "partial": FLAG,
            "audio": only(),
            **_OF_ANY_MESSAGE,
        },
    ),
)
_TOOL = an_object(
    {"function": an_object({"name": NAME}, {"description": TEXT, "parameters": MAPPING, "strict": FLAG})},
    {"type": a_word("function"), **skipped(("cache_control",))},
)
_NAMED = an_object({"name": {**TEXT, "minLength": 1}})
_TOOL_CHOICE = one_of(
    a_word("auto", "none", "required"),
    an_object({"type": a_word("function"), "function": _NAMED}),
    an_object({"type": a_word("function"), "name": {**TEXT, "minLength": 1}}),
)
_JSON_SCHEMA = an_object({}, {"name": TEXT, "description": TEXT, "strict": FLAG, "schema": MAPPING})
_RESPONSE_FORMAT = one_of(
    an_object({}, {"type": a_word("text")}),
    an_object({"type": a_word("json_object")}, {"schema": MAPPING}),
    an_object({"type": a_word("json_schema"), "json_schema": _JSON_SCHEMA}),
)
_BUDGET = whole(0, 10**9)
THINKING: dict[str, Schema] = {
    "enable_thinking": FLAG,
    "thinking_budget": _BUDGET,
    "chat_template_kwargs": an_object(
        {}, {"enable_thinking": FLAG, "thinking": FLAG, "thinking_budget": _BUDGET}
    ),
    "reasoning_effort": EFFORT,
    "reasoning": an_object(
        {},
        {
            "effort": EFFORT,
            "max_tokens": _BUDGET,
            "enabled": FLAG,
            "summary": only("auto", "none", "concise", "detailed"),
        },
    ),
    "thinking": one_of(
        FLAG,
        an_object(
            {},
            {"type": a_word("enabled", "disabled", "adaptive", "auto"), "budget_tokens": _BUDGET},
        ),
    ),
}
CHAT = an_object(
    {"messages": a_list(_MESSAGE, least=1)},
    {
        **MODEL,
        **SAMPLING,
        **THINKING,
        "tools": a_list(_TOOL),
        "tool_choice": _TOOL_CHOICE,
        "parallel_tool_calls": FLAG,
        "max_completion_tokens": LIMIT,
        "max_tokens": LIMIT,
        "logprobs": FLAG,
        "top_logprobs": whole(0, MAX_TOP_LOGPROBS),
        "continue_final_message": FLAG,
        "add_generation_prompt": FLAG,
        "response_format": _RESPONSE_FORMAT,
        "n": whole(1),
        "stream": FLAG,
        "include_reasoning": FLAG,
        "stream_options": an_object({}, {**STREAM_OPTIONS, "continuous_usage_stats": FLAG}),
        "modalities": only(["text"]),
        "store": only(False),
        "service_tier": only("auto", "default"),
        "verbosity": only("medium"),
        "cache_prompt": only(True),
        "reasoning_format": only("auto", "deepseek", "parsed"),
        "functions": only([]),
        "function_call": only("auto", "none"),
        **skipped(BOOKKEEPING),
    },
)
COMPLETION = an_object(
    {"prompt": one_of(TEXT, a_list(one_of(TEXT, TOKEN_IDS), least=1), {**TOKEN_IDS, "minItems": 1})},
    {
        **MODEL,
        **SAMPLING,
        "max_tokens": LIMIT,
        "logprobs": whole(0, MOST_LOGPROBS),
        "echo": FLAG,
        "n": whole(1),
        "best_of": whole(1),
        "suffix": only(),
        "stream": FLAG,
        "stream_options": an_object({}, STREAM_OPTIONS),
        **skipped(BOOKKEEPING),
    },
)

# Vectors, scores, tokens

_NOT_EMPTY: Schema = {**TEXT, "minLength": 1}
_SOME_IDS: Schema = {**TOKEN_IDS, "minItems": 1}
EMBEDDINGS = an_object(
    {"input": one_of(_NOT_EMPTY, _SOME_IDS, a_list(one_of(_NOT_EMPTY, _SOME_IDS), 1, MOST_TEXTS))},
    {
        **MODEL,
        "encoding_format": a_word("float", "base64"),
        "dimensions": whole(1),
        "instruction": TEXT,
        **skipped(("user",)),
    },
)
RERANK = an_object(
    {"query": TEXT, "documents": a_list(one_of(TEXT, an_object({"text": TEXT})), 1, MOST_TEXTS)},
    {
        **MODEL,
        "top_n": whole(1),
        "top_k": whole(1),
        "return_documents": FLAG,
        "instruction": TEXT,
        **skipped(("user",)),
    },
)
_NOT_SPECIAL = {name: only(False) for name in ("add_special", "add_special_tokens", "parse_special")}
TOKENIZE = one_of(
    an_object({"content": TEXT}, {**MODEL, "prompt": TEXT, "with_pieces": FLAG, **_NOT_SPECIAL}),
    an_object({"prompt": TEXT}, {**MODEL, "with_pieces": FLAG, **_NOT_SPECIAL}),
    an_object(
        {"messages": a_list(_MESSAGE, least=1)},
        {**MODEL, **THINKING, "tools": a_list(_TOOL), "with_pieces": FLAG, **_NOT_SPECIAL},
    ),
)
DETOKENIZE = an_object({"tokens": TOKEN_IDS}, MODEL)
