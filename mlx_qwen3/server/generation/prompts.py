"""Makes the engine's requests of a ServerRequest: renders and encodes its prompts, checks schema and tools.

It takes milliseconds for a long conversation, so it runs on a thread of its own, not on the event loop's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.engine.completion import check_prompt
from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.engine.request import TurnRequest, params_for
from mlx_qwen3.errors import SamplingError, SchemaError
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.grammar import AnswerSchema
from mlx_qwen3.server.errors import bad_request
from mlx_qwen3.server.request import ServerRequest
from mlx_qwen3.server.reuse.recall import Recall
from mlx_qwen3.tokenizer.chat_template import Thinking

# A logit that no model overcomes.
FORBIDDEN = -100.0


@dataclass(frozen=True)
class Prompted:
    """A request as engines take it.

    Attributes:
        turns: One for each choice, in order.
        messages: The conversation as it was rendered, without a schema; None for texts to complete.
        tools: As they were rendered.
        thinking: Whether the model may think.
    """

    turns: Sequence[TurnRequest]
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    thinking: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once."""
        return sum(
            len(turn.prompt_ids) for turn in {id(turn.prompt_ids): turn for turn in self.turns}.values()
        )

    @property
    def begins_turn(self) -> bool:
        """Whether the conversation ends with a message of the user, and not with results of tools."""
        return self.messages is None or self.messages[-1].get("role") == "user"


def make_prompt(core: EngineCore, request: ServerRequest, recall: Recall, thinks: bool) -> Prompted:
    """Render and encode what `request` asks for.

    Args:
        core: The engine of its model.
        request: The request.
        recall: Knows what clients leave out.
        thinks: Whether the model thinks if the request does not say.

    Raises:
        RequestError: A value of the request cannot be used.
        MessageError, SamplingError, SchemaError: As of the engine.
    """
    if request.messages is None:
        return _texts(core, request)
    ability = core.tokenizer.template.thinking
    wanted = thinks if request.thinking is None else request.thinking
    budget = request.thinking_budget
    if ability is Thinking.ALWAYS and request.thinking is False:
        budget = 0  # it cannot be told not to think: its thinking ends before it begins
    thinking = ability is Thinking.ALWAYS or (ability is Thinking.HYBRID and wanted and budget != 0)
    request = replace(request, tools=recall.same_tools(request.tools, request.key))
    messages = recall.restore(request.messages or (), request.key)
    ids = _conversation_ids(core, request, messages, thinking)
    params = _params(core, request, thinking)
    turn = TurnRequest(
        ids,
        params,
        thinking_budget=budget if thinking else None,
        schema=request.schema if request.tool_choice != "required" else None,
        tool_schemas=_callable_tools(request),
        must_call=request.tool_choice == "required",
        one_call=not request.parallel_tool_calls,
    )
    return Prompted(_choices(turn, request.n), messages, request.tools, thinking)


def next_prefix(core: EngineCore, prompted: Prompted, answer: Mapping[str, Any]) -> list[int]:
    """The ids that the next prompt of a conversation begins with for certain, after `answer` of the model."""
    assert prompted.messages is not None
    first, second = (
        core.tokenizer.apply_chat_template(
            [*prompted.messages, answer, {"role": "user", "content": text}],
            tools=prompted.tools or None,
            enable_thinking=prompted.thinking,
        )
        for text in "ab"
    )
    return first[: common_prefix(first, second)]


def _conversation_ids(
    core: EngineCore, request: ServerRequest, messages: Sequence[Mapping[str, Any]], thinking: bool
) -> list[int]:
    schema = None
    if request.schema is not None:
        schema = AnswerSchema.of(request.schema)
    ids = core.tokenizer.apply_chat_template(
        schema.add_to(messages) if schema else list(messages),
        tools=list(request.tools) or None,
        enable_thinking=thinking,
        continue_final_message=request.continue_final_message,
    )
    check_prompt(ids, core.longest)
    return ids


def _callable_tools(request: ServerRequest) -> dict[str, Mapping[str, Any]]:
    """The tools that may be called, name -> schema of the parameters."""
    if request.tool_choice == "none":
        return {}
    functions = [tool["function"] for tool in request.tools]
    tools = {function["name"]: function.get("parameters") or {"type": "object"} for function in functions}
    if request.tool_name is not None:
        if request.tool_name not in tools:
            raise bad_request(
                f"tool_choice names {request.tool_name!r:.80}, which is none of the tools", "tool_choice"
            )
        return {request.tool_name: tools[request.tool_name]}
    if request.tool_choice == "required" and not tools:
        raise bad_request("tool_choice asks for a call, and there are no tools", "tool_choice")
    return tools


def _params(core: EngineCore, request: ServerRequest, thinking: bool) -> SamplingParams:
    try:
        params = params_for(core.tokenizer, thinking, dict(request.sampling))
    except SamplingError as error:
        name = str(error).split(" ", 1)[0]
        raise bad_request(str(error), name if name in request.sampling else None) from None
    too_large = [token for token, _ in params.logit_bias if token >= core.config.vocab_size]
    if too_large:
        raise bad_request(f"logit_bias names token {too_large[0]}, which there is not", "logit_bias")
    start = core.tokenizer.tool_call_start_id
    if request.tool_choice == "none" and request.tools and start is not None:
        # The tools stay in the prompt, so that it is the prompt of the other requests.
        params = replace(params, logit_bias=(*params.logit_bias, (start, FORBIDDEN)))
    return params


def _texts(core: EngineCore, request: ServerRequest) -> Prompted:
    if request.schema is not None or request.tools:
        raise SchemaError("a schema and tools are for conversations, and this is a text to complete")
    turns: list[TurnRequest] = []
    params = _params(core, request, thinking=False)
    for number, prompt in enumerate(request.prompts or ()):
        ids = core.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if any(not 0 <= id_ < core.config.vocab_size for id_ in ids):
            raise bad_request("prompt holds a token id that the model does not have", "prompt")
        check_prompt(ids, core.longest)
        turn = TurnRequest(ids, params, is_completion=True)
        if number and params.seed is not None:
            turn = replace(turn, params=replace(params, seed=params.seed + number * request.n))
        turns += _choices(turn, request.n)
    return Prompted(turns)


def _choices(turn: TurnRequest, count: int) -> list[TurnRequest]:
    """The request, once for each choice: with a seed of its own, made of the one given."""
    turn = replace(turn, asked_at=time.perf_counter())
    seed = turn.params.seed
    if seed is None:
        return [turn] * count
    return [replace(turn, params=replace(turn.params, seed=seed + number)) for number in range(count)]
