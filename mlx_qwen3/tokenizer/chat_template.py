"""Renders messages into a prompt with the checkpoint's own Jinja template.

Whether a checkpoint can think and call tools is read from its template, never from its name.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_qwen3.errors import MessageError, TemplateError
from mlx_qwen3.files import read_bytes
from mlx_qwen3.tokenizer.messages import Message, check_messages, check_tools, parse_arguments, split_thinking
from mlx_qwen3.tokenizer.published_templates import is_published
from mlx_qwen3.tokenizer.special_tokens import PromptPiece, SpecialTokenGuard, choose_sentinel

if TYPE_CHECKING:
    from mlx_qwen3.tokenizer.isolated_template import IsolatedTemplate
    from mlx_qwen3.tokenizer.jinja_sandbox import CompiledTemplate

MAX_TEMPLATE_BYTES = 2**22


class Thinking(StrEnum):
    """Whether a checkpoint thinks before it answers.

    HYBRID: if `enable_thinking` is set. ALWAYS: its prompt opens `<think>`. NEVER: neither.
    """

    HYBRID = "hybrid"
    ALWAYS = "always"
    NEVER = "never"


class ToolFormat(StrEnum):
    """How a checkpoint writes a tool call inside `<tool_call>`.

    JSON: `{"name": ..., "arguments": {...}}`. XML: `<function=...><parameter=...>`, as Qwen3-Coder does.
    """

    JSON = "json"
    XML = "xml"


class ChatTemplate:
    """A chat template. It is compiled on first use. Rendering changes no state, so threads may share it.

    Qwen3's own templates run in this process, all others in one of their own: see isolated_template.py.
    """

    def __init__(
        self, source: str, special_tokens: Iterable[str] = (), variables: Mapping[str, Any] | None = None
    ) -> None:
        """special_tokens: spellings that only the template may write.
        variables: what it can read besides the conversation, such as `eos_token`.
        """
        self.source = source
        self._guard = SpecialTokenGuard(special_tokens)
        self._variables = dict(variables or {})

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = True,
        add_generation_prompt: bool = True,
    ) -> list[PromptPiece]:
        """The prompt as pieces of plain text and special tokens. Supplied text is always plain text.

        The parameters are those of `Tokenizer.apply_chat_template`. Raises MessageError for a conversation
        that the template cannot take, and TemplateError if the template does not parse, fails, reaches
        outside its sandbox or does not end.
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
        return list(self._guard.split(self._compiled.render(self._variables | variables), sentinel))

    @cached_property
    def thinking(self) -> Thinking:
        """Whether the checkpoint thinks. Raises TemplateError if the template cannot be used."""
        if "enable_thinking" in self._compiled.variables:
            return Thinking.HYBRID
        prompt = "".join(piece.text for piece in self.render([{"role": "user", "content": "hi"}]))
        return Thinking.ALWAYS if prompt.rstrip().endswith("<think>") else Thinking.NEVER

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """How the checkpoint writes tool calls; None if the template does not read tools."""
        strings = self._compiled.strings
        if "tools" not in self._compiled.variables:
            return None
        if any("<function=" in string for string in strings):
            return ToolFormat.XML
        return ToolFormat.JSON if any("<tool_call>" in string for string in strings) else None

    @cached_property
    def answer_end(self) -> str | None:
        """The special token that the template writes after an answer; None if it writes none."""
        answer = "An answer."
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer}]
        pieces = self.render(messages, add_generation_prompt=False)
        after = [index for index, piece in enumerate(pieces) if answer in piece.text]
        ends = [piece.text for piece in pieces[after[-1] + 1 :] if piece.is_special] if after else []
        return ends[0] if ends else None

    @cached_property
    def _compiled(self) -> CompiledTemplate | IsolatedTemplate:
        if is_published(self.source):
            from mlx_qwen3.tokenizer.jinja_sandbox import CompiledTemplate  # imports jinja2, 60 ms

            return CompiledTemplate(self.source)
        from mlx_qwen3.tokenizer.isolated_template import IsolatedTemplate

        return IsolatedTemplate(self.source)

    def _prepare(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as this template reads them."""
        conversation = check_messages(messages)
        if "reasoning_content" in self._compiled.strings:
            conversation = [split_thinking(message) for message in conversation]
        return parse_arguments(conversation) if self.tool_format is ToolFormat.XML else conversation

    def _protect(self, value: Any, sentinel: str) -> Any:
        """`value` with sentinels. A message keeps its role as it is: `check_messages` has checked it."""
        try:
            protected = self._guard.protect(value, sentinel)
        except RecursionError as error:
            raise MessageError("the conversation or a tool is nested too deeply") from error
        return protected | {"role": value["role"]} if isinstance(value, dict) else protected


def find_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str:
    """The source of a checkpoint's chat template.

    It is in chat_template.jinja, or under `chat_template` in tokenizer_config.json: a string, or a list of
    {name, template} of which "default" is used. Raises TemplateError if there is none.
    """
    file = folder / "chat_template.jinja"
    try:
        data = read_bytes(file, MAX_TEMPLATE_BYTES)
        if len(data) > MAX_TEMPLATE_BYTES:
            raise TemplateError(f"{file} is larger than {MAX_TEMPLATE_BYTES // 2**20} MiB")
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()  # as open() reads line ends
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"cannot read {file}: {error}") from error
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        raise TemplateError(
            f"no chat template in {folder}: add chat_template.jinja, or use a checkpoint made for chat"
        )
    return template
