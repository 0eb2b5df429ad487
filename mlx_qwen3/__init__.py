"""Qwen3 on Apple silicon, in MLX.

    from mlx_qwen3 import Engine

    with Engine("14b") as engine:
        print(engine.session().ask("What is 47 + 85?").answer)

Importing this package is light: a name below brings its module in when it is first used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_qwen3.cache.prompt_cache import make_prompt_cache as make_prompt_cache
    from mlx_qwen3.checkpoint import load_model as load_model
    from mlx_qwen3.checkpoint.tokenizer import load_tokenizer as load_tokenizer
    from mlx_qwen3.conversion import convert as convert
    from mlx_qwen3.engine.batch import BatchRequest as BatchRequest
    from mlx_qwen3.engine.batch import BatchResult as BatchResult
    from mlx_qwen3.engine.engine import Engine as Engine
    from mlx_qwen3.engine.session import Session as Session
    from mlx_qwen3.engine.streams import Reply as Reply
    from mlx_qwen3.errors import Qwen3Error as Qwen3Error
    from mlx_qwen3.events import AnswerDelta as AnswerDelta
    from mlx_qwen3.events import ContextGrown as ContextGrown
    from mlx_qwen3.events import Done as Done
    from mlx_qwen3.events import Event as Event
    from mlx_qwen3.events import LoadProgress as LoadProgress
    from mlx_qwen3.events import Logprobs as Logprobs
    from mlx_qwen3.events import MemoryLow as MemoryLow
    from mlx_qwen3.events import PromptProgress as PromptProgress
    from mlx_qwen3.events import Stats as Stats
    from mlx_qwen3.events import ThinkingDelta as ThinkingDelta
    from mlx_qwen3.events import ThinkingDone as ThinkingDone
    from mlx_qwen3.events import TokenLogprob as TokenLogprob
    from mlx_qwen3.events import ToolCall as ToolCall
    from mlx_qwen3.events import ToolCallDelta as ToolCallDelta
    from mlx_qwen3.events import ToolCallStart as ToolCallStart
    from mlx_qwen3.events import ToolResult as ToolResult
    from mlx_qwen3.generation.params import SamplingParams as SamplingParams
    from mlx_qwen3.tools import tool as tool

# What is logged goes where the program sends it, and nowhere by itself.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"

_MODULES = {
    "AnswerDelta": "events",
    "BatchRequest": "engine.batch",
    "BatchResult": "engine.batch",
    "ContextGrown": "events",
    "Done": "events",
    "Engine": "engine.engine",
    "Event": "events",
    "LoadProgress": "events",
    "Logprobs": "events",
    "MemoryLow": "events",
    "PromptProgress": "events",
    "Qwen3Error": "errors",
    "Reply": "engine.streams",
    "SamplingParams": "generation.params",
    "Session": "engine.session",
    "Stats": "events",
    "ThinkingDelta": "events",
    "ThinkingDone": "events",
    "TokenLogprob": "events",
    "ToolCall": "events",
    "ToolCallDelta": "events",
    "ToolCallStart": "events",
    "ToolResult": "events",
    "convert": "conversion",
    "load_model": "checkpoint",
    "load_tokenizer": "checkpoint.tokenizer",
    "make_prompt_cache": "cache.prompt_cache",
    "tool": "tools",
}

__all__ = ["__version__", *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # next time it is found without coming here
    return value


def __dir__() -> list[str]:
    return __all__
