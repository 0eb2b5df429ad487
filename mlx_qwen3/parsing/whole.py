"""Whole strings at once, for text that comes from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_qwen3.events import Event
from mlx_qwen3.parsing.stream import StreamParser, merge


def parse(
    text: str,
    *,
    thinking: bool = False,
    tool_format: str | None = "json",
    tool_names: frozenset[str] | None = None,
    tool_schemas: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Event]:
    """The events of a whole turn given as a string, in which tags are spelled. Never raises."""
    parser = StreamParser((), thinking, tool_format, tool_names, tool_schemas)
    return merge(parser.push_text(text) + parser.finish())
