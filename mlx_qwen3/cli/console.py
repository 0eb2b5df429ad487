"""Rich's console, made safe: whatever is printed through it is printable text, and never markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from mlx_qwen3.cli.output import printable


class SafeConsole(Console):
    """A Console for text of others. Text is filtered where it becomes output, after all formatting.

    Rich's own codes (colours, cursor) are kept apart from text and stay.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
