"""Makes the grammar of a turn from the schema of its answer and the tools it is offered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_qwen3.errors import SchemaError, install_command
from mlx_qwen3.grammar.answer_schema import AnswerSchema
from mlx_qwen3.grammar.matcher import is_grammar, is_installed, schema_problem
from mlx_qwen3.grammar.rules import (
    answer_or_call_rules,
    answer_rules,
    call_rules,
    one_call_rules,
    only_call_rules,
)
from mlx_qwen3.grammar.turn_grammar import Phase, TurnGrammar
from mlx_qwen3.tokenizer import Tokenizer
from mlx_qwen3.tokenizer.chat_template import Thinking


def constrain(
    tokenizer: Tokenizer,
    vocab_size: int,
    prompt_ids: Sequence[int],
    answer: AnswerSchema | None,
    tools: Mapping[str, Mapping[str, Any]],
    *,
    must_call: bool = False,
    one_call: bool = False,
) -> TurnGrammar | None:
    """The grammar of the turn that follows a prompt.

    Tool calls are constrained only if the extra `grammar` is installed and the schemas of the tools can
    become a grammar. The stream parser reads calls in either case.

    Args:
        tokenizer: The tokenizer of the model.
        vocab_size: The size V of the model's logits.
        prompt_ids: The prompt, which may open or close a think block.
        answer: The schema of the answer; None for a free answer.
        tools: The tools offered, name -> JSON schema of the parameters.
        must_call: The turn has to call a tool; there is no answer, and `answer` does not matter.
        one_call: There is at most one call.

    Returns:
        The grammar; None if nothing is constrained.

    Raises:
        SchemaError: `must_call`, and calls cannot be constrained; or the prompt ends with the beginning of an
            answer that is of another form.
    """
    call, tags = _call_rules(tokenizer, tools), _call_tags(tokenizer)
    if must_call:
        if not call or not tags:
            raise SchemaError(_why_no_call(tokenizer, tools))
        return TurnGrammar(
            tokenizer,
            vocab_size,
            only_call_rules(call, tags, one_call),
            True,
            _first_phase(tokenizer, prompt_ids),
        )
    if answer is None:
        rules = one_call_rules(call) if call else None
    elif call and tags:
        rules = answer_or_call_rules(answer.schema, call, tags, one_call)
    else:
        rules = answer_rules(answer.schema)
    if rules is None:
        return None
    grammar = TurnGrammar(
        tokenizer, vocab_size, rules, answer is not None, _first_phase(tokenizer, prompt_ids)
    )
    if answer is not None and (begun := begun_answer(tokenizer, prompt_ids)):
        grammar.begin(begun)
    return grammar


def begun_answer(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> str:
    """The beginning of the answer that a prompt ends with: what follows its header and its thinking."""
    start = tokenizer.control_tokens.get("<|im_start|>")
    if start is None or start not in prompt_ids or tokenizer.think_block(prompt_ids) == "open":
        return ""
    message = list(prompt_ids[len(prompt_ids) - list(reversed(prompt_ids)).index(start) :])
    if tokenizer.think_end_id in message:
        return tokenizer.decode(message[message.index(tokenizer.think_end_id) + 1 :]).lstrip("\n")
    _, _, text = tokenizer.decode(message).partition("\n")
    return text


def _why_no_call(tokenizer: Tokenizer, tools: Mapping[str, Mapping[str, Any]]) -> str:
    if not tools:
        return "there is no tool that the model could have to call"
    if not is_installed():
        return f"a call can be made to happen only with llguidance: {install_command('grammar')}"
    if _call_tags(tokenizer) is None or tokenizer.template.tool_format is None:
        return "this model cannot call tools; its chat template has no place for them"
    return "the names of the tools cannot become a grammar; use letters, digits, _ and -"


def _first_phase(tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> Phase:
    """The phase in which a turn begins: the prompt may have opened thinking, or closed it."""
    think_block = tokenizer.think_block(prompt_ids)
    if think_block == "open":
        return Phase.THINKING
    can_think = tokenizer.think_start_id is not None and tokenizer.template.thinking is not Thinking.NEVER
    return Phase.OPENING if think_block is None and can_think else Phase.CONSTRAINED


def _call_tags(tokenizer: Tokenizer) -> tuple[int, int] | None:
    """The ids of `<tool_call>` and `</tool_call>`; None if the tokenizer lacks one."""
    start, end = tokenizer.tool_call_start_id, tokenizer.tool_call_end_id
    return None if start is None or end is None else (start, end)


def _call_rules(tokenizer: Tokenizer, tools: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The rules of calls of `tools`; None if they cannot be constrained."""
    tags, tool_format = _call_tags(tokenizer), tokenizer.template.tool_format
    if not tools or tags is None or tool_format is None or not is_installed():
        return None
    parameters = {name: _parameters(schema) for name, schema in tools.items()}
    rules = call_rules(parameters, tool_format, tags)
    return rules if is_grammar(one_call_rules(rules)) else None


def _parameters(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a tool's parameters; "any object" if it is not an object's or cannot become a grammar."""
    schema = {"type": "object"} | dict(schema)
    is_usable = schema["type"] == "object" and not schema_problem(schema)
    return schema if is_usable else {"type": "object"}
