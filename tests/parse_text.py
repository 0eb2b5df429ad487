"""Parses the whole text of a turn at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_qwen3.events import Event
from mlx_qwen3.parsing import StreamParser, merge_deltas


def parse_text(
    text: str,
    *,
    thinking: bool = False,
    tool_format: str | None = "json",
    tool_schemas: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Event]:
    """The events of a turn whose tags are spelled in `text`."""
    parser = StreamParser((), thinking, tool_format, tool_schemas)
    return merge_deltas(parser.push_text(text) + parser.finish())
