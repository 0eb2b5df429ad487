"""Requests: what the engine is asked to do, as plain data that any thread, process or machine could send."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sequence import Priority


@dataclass(frozen=True)
class TurnRequest:
    """One model turn, or one raw completion.

    Attributes:
        prompt_ids: The whole prompt.
        params: How tokens are chosen, and when to stop.
        thinking_budget: The most tokens of thinking; None is no limit.
        schema: The JSON schema that the answer must follow.
        tool_schemas: The tools offered, name -> JSON schema of its parameters.
        is_completion: The output is plain text: no thinking, no calls, no turns.
        priority: Which requests go first.
        asked_at: The `time.perf_counter()` that TTFT counts from.
    """

    prompt_ids: Sequence[int]
    params: SamplingParams
    thinking_budget: int | None = None
    schema: Mapping[str, Any] | None = None
    tool_schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_completion: bool = False
    priority: Priority = Priority.INTERACTIVE
    asked_at: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class PrefillRequest:
    """Bring a session's cache in line with the beginning of its next prompt, while nothing else runs."""

    prompt_ids: Sequence[int]
