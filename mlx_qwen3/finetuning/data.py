"""Reads conversations to train on: each answer of the assistant is an example, with the prompt before it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_qwen3.errors import MessageError, Qwen3Error
from mlx_qwen3.files import text_lines
from mlx_qwen3.tokenizer import Tokenizer

MAX_DATA_BYTES = 2**31


@dataclass(frozen=True)
class Example:
    """Token ids, of which those from `answer` on are learned."""

    ids: list[int]
    answer: int


def read_examples(file: Path, tokenizer: Tokenizer, thinking: bool, max_length: int) -> list[Example]:
    """The examples in a .jsonl of conversations: `messages`, and perhaps `tools`.

    thinking: Learn the thinking (`reasoning_content`) too; otherwise answers are learned as of a model that
    does not think. max_length: the most tokens of an example.
    Raises MessageError, which names the line.
    """
    try:
        if file.stat().st_size > MAX_DATA_BYTES:
            raise MessageError(f"{file} is larger than {MAX_DATA_BYTES // 2**30} GiB; divide it")
        lines = text_lines(file.read_bytes().decode("utf-8-sig", "replace"))
    except OSError as error:
        raise MessageError(f"{file} cannot be read: {error.strerror}") from error
    examples: list[Example] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                examples += _examples(_conversation(line), tokenizer, thinking, max_length)
            except Qwen3Error as error:
                raise MessageError(f"{file}, line {number}: {error}") from error
    if not examples:
        raise MessageError(f"{file} holds no answer of an assistant to learn from")
    return examples


def _conversation(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise MessageError('is no JSON object with "messages"')
    if unknown := [name for name in row if name not in ("messages", "tools")]:
        raise MessageError(f"there is no field {unknown[0]!r:.40}; there are messages and tools")
    return row


def _examples(row: Mapping[str, Any], tokenizer: Tokenizer, thinking: bool, max_length: int) -> list[Example]:
    messages: Sequence[Any] = row["messages"]
    result = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise MessageError("a message must be an object with role and content")
        if message.get("role") != "assistant" or index == 0:
            continue
        answer = message if thinking else {key: message[key] for key in message if key != "reasoning_content"}
        thinks = thinking and bool(message.get("reasoning_content"))
        before = messages[:index]
        prompt = tokenizer.apply_chat_template(before, row.get("tools"), enable_thinking=thinks)
        ids = tokenizer.apply_chat_template([*before, answer], row.get("tools"), add_generation_prompt=False)
        if ids[: len(prompt)] != prompt:
            raise MessageError("the chat template does not write this answer behind its prompt")
        if len(ids) > max_length:
            raise MessageError(
                f"it has {len(ids):,} tokens and may have {max_length:,}", [{"max_length": ...}]
            )
        result.append(Example(list(ids), len(prompt)))
    return result
