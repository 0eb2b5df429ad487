"""What a turn is held to: a schema for its answer, the tools offered for its calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_qwen3.grammar.answer_schema import AnswerSchema
from mlx_qwen3.grammar.matcher import is_grammar, is_installed, schema_problem
from mlx_qwen3.grammar.rules import answer_or_call_rules, answer_rules, call_rules, only
from mlx_qwen3.grammar.turn_grammar import Phase, TurnGrammar
from mlx_qwen3.tokenizer import Tokenizer
from mlx_qwen3.tokenizer.chat_template import Thinking


def constrain(
    tokenizer: Tokenizer,
    vocab_size: int,
    prompt_ids: Sequence[int],
    answer: AnswerSchema | None,
    tools: Mapping[str, Mapping[str, Any]],
) -> TurnGrammar | None:
    """The constraint of a turn after `prompt_ids`: the form of its answer, and calls of `tools` alone.

    None where there is nothing to bind: calls are bound where the extra `grammar` is installed and the
    tools' schemas can be made a grammar, and read by the stream parser in any case.
    """
    call, tags = _calls(tokenizer, tools), _tags(tokenizer)
    if answer is None:
        rules = only(call) if call else None
    elif call and tags:
        rules = answer_or_call_rules(answer.schema, call, tags)
    else:
        rules = answer_rules(answer.schema)
    if rules is None:
        return None
    return TurnGrammar(tokenizer, vocab_size, rules, answer is not None, opening_phase(tokenizer, prompt_ids))


def opening_phase(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> Phase:
    """Where a turn begins: in thinking that the prompt opened, behind thinking that it closed, or before."""
    for token in reversed(prompt_ids):
        if token == tokenizer.think_start_id:
            return Phase.THINKING
        if token == tokenizer.think_end_id:
            return Phase.BOUND
        if token == tokenizer.control_tokens["<|im_start|>"]:
            break
    can_think = tokenizer.think_start_id is not None and tokenizer.template.thinking is not Thinking.NEVER
    return Phase.OPENING if can_think else Phase.BOUND


def _tags(tokenizer: Tokenizer) -> tuple[int, int] | None:
    start, end = tokenizer.tool_call_start_id, tokenizer.tool_call_end_id
    return None if start is None or end is None else (start, end)


def _calls(tokenizer: Tokenizer, tools: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The rules of calls of `tools`; None where they cannot be bound."""
    tags, tool_format = _tags(tokenizer), tokenizer.template.tool_format
    if not tools or tags is None or tool_format is None or not is_installed():
        return None
    parameters = {name: _parameters(schema) for name, schema in tools.items()}
    rules = call_rules(parameters, tool_format, tags)
    return rules if is_grammar(only(rules)) else None


def _parameters(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool's schema if it is one of objects and a grammar can be made of it, else one of any object."""
    schema = {"type": "object"} | dict(schema)
    is_usable = schema["type"] == "object" and not schema_problem(schema)
    return schema if is_usable else {"type": "object"}
