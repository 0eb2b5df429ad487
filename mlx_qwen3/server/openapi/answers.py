"""The bodies of answers, as JSON schemas."""

from __future__ import annotations

from mlx_qwen3.server.openapi.schemas import (
    ANY,
    COUNT,
    FLAG,
    MAPPING,
    NUMBER,
    TEXT,
    TOKEN_IDS,
    Schema,
    a_list,
    a_word,
    answer,
    one_of,
    only,
    or_null,
)

ERROR = answer({"error": answer({"message": TEXT, "type": TEXT}, {"param": or_null(TEXT), "code": ANY})})
ANTHROPIC_ERROR = answer({"type": only("error"), "error": answer({"type": TEXT, "message": TEXT})})

_USAGE = answer({"prompt_tokens": COUNT, "total_tokens": COUNT}, {"completion_tokens": COUNT})
_FINISH = a_word("stop", "length", "tool_calls")
_LOGPROBS = or_null(answer({"content": a_list(answer({"token": TEXT, "logprob": NUMBER}))}))
_CALL = answer({"id": TEXT, "type": only("function"), "function": answer({"name": TEXT, "arguments": TEXT})})
_MESSAGE = answer(
    {"role": only("assistant"), "content": or_null(TEXT)},
    {"reasoning_content": TEXT, "reasoning": TEXT, "tool_calls": a_list(_CALL, least=1)},
)


def _completion(kind: str, choice: Schema) -> Schema:
    return answer(
        {
            "id": TEXT,
            "object": only(kind),
            "created": COUNT,
            "model": TEXT,
            "choices": a_list(choice, least=1),
            "usage": _USAGE,
        }
    )


CHAT = _completion(
    "chat.completion",
    answer({"index": COUNT, "message": _MESSAGE, "logprobs": _LOGPROBS, "finish_reason": _FINISH}),
)
COMPLETION = _completion(
    "text_completion",
    answer({"index": COUNT, "text": TEXT, "logprobs": or_null(MAPPING), "finish_reason": _FINISH}),
)
EMBEDDINGS = answer(
    {
        "object": only("list"),
        "model": TEXT,
        "usage": _USAGE,
        "data": a_list(
            answer({"object": only("embedding"), "index": COUNT, "embedding": one_of(TEXT, a_list(NUMBER))}),
            least=1,
        ),
    }
)
RERANK = answer(
    {
        "object": only("list"),
        "model": TEXT,
        "usage": _USAGE,
        "results": a_list(answer({"index": COUNT, "relevance_score": NUMBER})),
    }
)
_PIECES = a_list(answer({"id": COUNT, "piece": TEXT}))
TOKENIZE = answer({"tokens": one_of(TOKEN_IDS, _PIECES), "count": COUNT})
DETOKENIZE = answer({"content": TEXT, "prompt": TEXT})
MODEL = answer({"id": TEXT, "object": only("model"), "created": COUNT, "owned_by": TEXT})
MODELS = answer({"object": only("list"), "data": a_list(MODEL, least=1)})

MESSAGE = answer(
    {
        "id": TEXT,
        "type": only("message"),
        "role": only("assistant"),
        "model": TEXT,
        "content": a_list(answer({"type": a_word("text", "thinking", "tool_use")})),
        "stop_reason": a_word(
            "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
        ),
        "stop_sequence": or_null(TEXT),
        "usage": answer({"input_tokens": COUNT, "output_tokens": COUNT, "cache_read_input_tokens": COUNT}),
    }
)
MESSAGE_TOKENS = answer({"input_tokens": COUNT})

RESPONSE = answer(
    {
        "id": TEXT,
        "object": only("response"),
        "created_at": COUNT,
        "status": a_word("completed", "incomplete", "failed", "in_progress"),
        "model": TEXT,
        "output": a_list(answer({"type": a_word("message", "reasoning", "function_call"), "id": TEXT})),
        "usage": or_null(answer({"input_tokens": COUNT, "output_tokens": COUNT, "total_tokens": COUNT})),
        "error": or_null(answer({"code": TEXT, "message": TEXT})),
    }
)
RESPONSE_TOKENS = answer({"object": only("response.input_tokens"), "input_tokens": COUNT})
RESPONSE_ITEMS = answer(
    {
        "object": only("list"),
        "data": a_list(answer({"type": TEXT})),
        "first_id": or_null(TEXT),
        "last_id": or_null(TEXT),
        "has_more": FLAG,
    }
)
DELETED = answer({"id": TEXT, "object": only("response"), "deleted": only(True)})

HEALTH = answer({"status": a_word("ok", "error", "stopping")}, {"error": TEXT})
SLOTS = a_list(
    answer({"id": TEXT, "model": TEXT, "state": a_word("waiting", "prefill", "decode"), "seconds": NUMBER})
)
STATUS = answer({"status": a_word("ok", "error", "stopping"), "models": a_list(MAPPING), "requests": SLOTS})
