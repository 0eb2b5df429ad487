"""Messages -> prompt, with the checkpoint's own Jinja template.

What a checkpoint can do (think, call tools) is read from its template, never from its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.errors import MessageError, TemplateError
from mlx_qwen3.tokenizer.messages import Message, check_messages, check_tools, parse_arguments, split_thinking
from mlx_qwen3.tokenizer.special_tokens import Guard, Piece, choose_sentinel

if TYPE_CHECKING:
    from mlx_qwen3.tokenizer.jinja_sandbox import Program


class Thinking(StrEnum):
    """Whether a checkpoint thinks before it answers.

    HYBRID: as `enable_thinking` says. ALWAYS: its prompt opens `<think>` itself. NEVER: neither.
    """

    HYBRID = "hybrid"
    ALWAYS = "always"
    NEVER = "never"


class ToolFormat(StrEnum):
    """How a checkpoint spells a tool call inside `<tool_call>`.

    JSON: `{"name": ..., "arguments": {...}}`. XML: `<function=...><parameter=...>`, as Qwen3-Coder.
    """

    JSON = "json"
    XML = "xml"


class Template:
    """A chat template. Compiled when first used; rendering changes nothing, so threads may share it."""

    def __init__(
        self, source: str, control_tokens: Iterable[str] = (), variables: Mapping[str, Any] | None = None
    ) -> None:
        """control_tokens: spellings that only the template may write.
        variables: what it can read beside the conversation, such as `eos_token`.
        """
        self.source = source
        self._guard = Guard(control_tokens)
        self._variables = dict(variables or {})

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt as text for people; `pieces` is what a tokenizer needs. Raises as `pieces` does."""
        return "".join(
            piece.text for piece in self.pieces(messages, tools, enable_thinking, add_generation_prompt)
        )

    def pieces(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
    ) -> list[Piece]:
        """The prompt as plain text and control tokens in turn; nothing supplied becomes a control token.

        messages: see `mlx_qwen3.tokenizer.messages`. tools: JSON schemas. Neither is changed.
        Raises MessageError for a conversation the template cannot take, TemplateError when the template
        does not parse, fails, reaches outside its sandbox or runs away.
        """
        conversation = self._prepare(messages)
        schemas = check_tools(tools)
        sentinel = choose_sentinel(self.source, json.dumps([conversation, schemas], ensure_ascii=False))
        variables = {
            "messages": [self._protect(message, sentinel) for message in conversation],
            "tools": self._protect(schemas, sentinel) or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": enable_thinking,
        }
        return list(self._guard.split(self._program.render(self._variables | variables), sentinel))

    @cached_property
    def thinking(self) -> Thinking:
        """Whether the checkpoint thinks. Raises TemplateError when the template does not work."""
        if "enable_thinking" in self._program.variables:
            return Thinking.HYBRID
        prompt = self.render([{"role": "user", "content": "hi"}])
        return Thinking.ALWAYS if prompt.rstrip().endswith("<think>") else Thinking.NEVER

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """How tool calls are spelled; None when the template reads no tools."""
        words = self._program.words
        if "tools" not in self._program.variables:
            return None
        if any("<function=" in word for word in words):
            return ToolFormat.XML
        return ToolFormat.JSON if any("<tool_call>" in word for word in words) else None

    @cached_property
    def _program(self) -> Program:
        from mlx_qwen3.tokenizer.jinja_sandbox import Program  # brings jinja2, 60 ms

        return Program(self.source)

    def _prepare(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        conversation = check_messages(messages)
        if "reasoning_content" in self._program.words:
            conversation = [split_thinking(message) for message in conversation]
        return parse_arguments(conversation) if self.tool_format is ToolFormat.XML else conversation

    def _protect(self, value: Any, sentinel: str) -> Any:
        try:
            guarded = self._guard.protect(value, sentinel)
        except RecursionError as error:
            raise MessageError("the conversation or a tool is nested too deeply") from error
        return guarded | {"role": value["role"]} if isinstance(value, dict) else guarded


def find_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str:
    """The source of a checkpoint's chat template.

    It is in chat_template.jinja, or under `chat_template` in tokenizer_config.json: a string, or a list
    of {name, template} of which "default" counts. Raises TemplateError when there is none.
    """
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        return _configured_template(folder, tokenizer_config.get("chat_template"))
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"cannot read {folder / 'chat_template.jinja'}: {error}") from error


def _configured_template(folder: Path, entry: Any) -> str:
    if isinstance(entry, list):
        named = {item.get("name"): item.get("template") for item in entry if isinstance(item, dict)}
        entry = named.get("default")
    if not isinstance(entry, str):
        raise TemplateError(
            f"no chat template in {folder}: add chat_template.jinja, or use a checkpoint made for chat"
        )
    return entry
