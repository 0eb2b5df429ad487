"""Sampling parameters that hold where the caller sets none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_qwen3.engine.core import EngineCore
from mlx_qwen3.errors import SamplingError
from mlx_qwen3.generation.params import SamplingParams, check_sampling
from mlx_qwen3.tokenizer.chat_template import Thinking

# What of generation_config.json concerns sampling.
PUBLISHED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def params_for(
    core: EngineCore, thinking: bool, sampling: SamplingParams | Mapping[str, Any] | None
) -> SamplingParams:
    """The parameters of a turn: `sampling` if it is complete, else the defaults with its values.

    Qwen's presets for hybrid models; a checkpoint with one mode (Instruct, Thinking, Coder) has its own in
    generation_config.json. Raises SamplingError for an unknown name or a bad value.
    """
    if isinstance(sampling, SamplingParams):
        return sampling
    check_sampling(sampling)
    return default_params(core, thinking).with_values(**dict(sampling or {}))


def default_params(core: EngineCore, thinking: bool) -> SamplingParams:
    """The defaults of the checkpoint for this mode."""
    preset = SamplingParams.for_mode(thinking)
    published = core.tokenizer.generation_config
    if core.tokenizer.template.thinking is Thinking.HYBRID or not published:
        return preset
    values = {name: published[name] for name in PUBLISHED if published.get(name) is not None}
    if published.get("do_sample") is False:
        values["temperature"] = 0
    try:
        return preset.with_values(**values)
    except SamplingError:  # a file that says nonsense is no reason not to run
        return preset
