"""Reads the sampling parameters and the switches of thinking that chats and completions share."""

from __future__ import annotations

from typing import Any

from mlx_qwen3.generation.params import MAX_STOPS, MAX_TOP_LOGPROBS, RANGES
from mlx_qwen3.server.fields import Fields
from mlx_qwen3.server.request import thinking_of_effort

# Names of other servers for our parameters.
NUMBERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
}
# Fields that concern the provider and the client, and no answer.
BOOKKEEPING = (
    *("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("prompt_cache_options", "prediction"),
)


def read_sampling(fields: Fields, seed_limit: int = 2**63) -> dict[str, Any]:
    """The sampling parameters that a request gives."""
    values: dict[str, Any] = {}
    for field, name in NUMBERS.items():
        if (number := fields.number(field, None, *RANGES[name])) is not None:
            values[name] = number
    for field in ("top_k", "min_tokens"):
        # Other servers switch top_k off by -1.
        if (number := fields.integer(field, None, -1 if field == "top_k" else 0, 10**9)) is not None:
            values[field] = max(0, number)
    if (seed := fields.integer("seed", None, -seed_limit, seed_limit)) is not None and seed != -1:
        values["seed"] = seed
    stop = fields.value("stop")
    if stop is not None:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
            raise fields.error("stop", "must be a string or a list of strings")
        if len(stops) > MAX_STOPS:
            raise fields.error("stop", f"may have {MAX_STOPS} strings, not {len(stops)}")
        values["stop"] = tuple(text for text in stops if text)
    if bias := fields.mapping("logit_bias"):
        values["logit_bias"] = _bias(fields, bias)
    return values


def _bias(fields: Fields, bias: dict[str, Any]) -> tuple[tuple[int, float], ...]:
    pairs = []
    for token, number in bias.items():
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not (token.isascii() and token.isdecimal() and len(token) < 10) or not is_number:
            raise fields.error("logit_bias", "maps token ids to numbers")
        if not -100 <= number <= 100:
            raise fields.error("logit_bias", "must be between -100 and 100")
        pairs.append((int(token), float(number)))
    return tuple(pairs)


def read_max_tokens(fields: Fields, *names: str) -> dict[str, int]:
    """The limit of tokens: the first of `names` that is given. -1 is no limit."""
    given = []
    for name in names:
        if (number := fields.integer(name, None, -1, 10**9)) is not None:
            given.append(number)
        if number == 0:
            raise fields.error(name, "must be at least 1, not 0")
    return {"max_tokens": given[0]} if given and given[0] > 0 else {}


def read_top_logprobs(fields: Fields) -> dict[str, Any]:
    """`logprobs` and `top_logprobs` of a chat."""
    wanted = fields.flag("logprobs", False)
    top = fields.integer("top_logprobs", None, 0, MAX_TOP_LOGPROBS)
    if top is not None and not wanted:
        raise fields.error("top_logprobs", "needs logprobs to be true")
    return {"logprobs": True, "top_logprobs": top or 0} if wanted else {}


def read_thinking(fields: Fields) -> tuple[bool | None, int | None]:
    """Whether to think, and the budget, in every dialect there is; None where nothing is said."""
    thinking: bool | None = fields.flag("enable_thinking")
    budget: int | None = fields.integer("thinking_budget", None, 0, 10**9)
    if (template := fields.object("chat_template_kwargs")) is not None:
        thinking = template.flag("enable_thinking", thinking)
        thinking = template.flag("thinking", thinking)
        budget = template.integer("thinking_budget", budget, 0, 10**9)
        template.finish()
    if (effort := fields.text("reasoning_effort")) is not None:
        said, limit = thinking_of_effort(effort, fields.where("reasoning_effort"))
        thinking = said if thinking is None else thinking
        budget = limit if budget is None else budget
    if (reasoning := fields.object("reasoning")) is not None:
        thinking, budget = _reasoning(reasoning, thinking, budget)
    if (block := fields.value("thinking")) is not None:
        if isinstance(block, bool):
            return block, budget
        inside = Fields(block, fields.where("thinking"))
        kind = inside.choice("type", ("enabled", "disabled", "adaptive", "auto"), "enabled")
        thinking = kind != "disabled"
        budget = inside.integer("budget_tokens", budget, 0, 10**9)
        inside.finish()
    return thinking, budget


def _reasoning(fields: Fields, thinking: bool | None, budget: int | None) -> tuple[bool | None, int | None]:
    """OpenRouter's `reasoning: {effort, max_tokens, enabled}`."""
    if (effort := fields.text("effort")) is not None:
        thinking, budget = thinking_of_effort(effort, fields.where("effort"))
    budget = fields.integer("max_tokens", budget, 0, 10**9)
    thinking = fields.flag("enabled", thinking)
    fields.only("summary", "auto", "none", "concise", "detailed")
    fields.finish()
    return thinking, budget
