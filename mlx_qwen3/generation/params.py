"""SamplingParams: how the next token is chosen, and when a text ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mlx_qwen3.errors import SamplingError

# Qwen's suggested limit for one answer, thinking included (https://huggingface.co/Qwen/Qwen3-14B).
MAX_TOKENS = 32768
MAX_TOP_LOGPROBS = 20
MAX_STOPS = 16


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and when generation stops. The defaults are Qwen's for thinking.

    Penalties count tokens of the turn's output, as serving engines do, and not of the prompt: loops
    are longer than any short window, and a name that the user gave must stay sayable.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: Keeps the likeliest tokens whose probabilities add up to this; 1 is off.
        top_k: Keeps so many of the likeliest tokens; 0 is off.
        min_p: Keeps tokens at least this times as likely as the likeliest; 0 is off.
        presence_penalty: Subtracted once from the logit of each token used.
        frequency_penalty: Subtracted from the logit of a token for each use.
        repetition_penalty: Divides the logit of each token used, or multiplies a negative one; 1 is off.
        max_tokens: The most tokens to generate, thinking included.
        seed: The same seed and prompt give the same text; None draws a seed.
        stop: Strings that end the answer. They are not part of it, and may span tokens.
        min_tokens: Tokens to generate before the model may end its turn. A schema that is complete
            ends the turn all the same.
        logit_bias: Token id -> number added to its logit, before penalties.
        logprobs: Whether to report the log probability of each token generated. Those of the model
            itself: before bias, penalties, temperature and filters, as OpenAI's and vLLM's are.
        top_logprobs: How many of the likeliest tokens to report beside it, at most 20.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = MAX_TOKENS
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_tokens: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise SamplingError(f"{name} must be between {low:g} and {high:g}, not {value!r}")
        for name in ("top_k", "max_tokens", "min_tokens", "top_logprobs"):
            if not isinstance(getattr(self, name), int):
                raise SamplingError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise SamplingError(f"seed must be a whole number or None, not {self.seed!r}")
        if self.top_p == 0:
            raise SamplingError("top_p must be above 0; use temperature 0 for the likeliest token")
        if not isinstance(self.logprobs, bool):
            raise SamplingError(f"logprobs must be True or False, not {self.logprobs!r}")
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))

    @classmethod
    def for_mode(cls, thinking: bool) -> SamplingParams:
        """Qwen's preset for thinking, or for answering directly."""
        return cls() if thinking else cls(temperature=0.7, top_p=0.8)

    def with_values(self, **values: Any) -> SamplingParams:
        """A copy with `values`.

        Raises:
            SamplingError: A name is unknown, or a value is out of its range.
        """
        known = [item.name for item in fields(self)]
        for name in values:
            if name not in known:
                raise SamplingError(f"there is no sampling parameter {name!r}; there are {', '.join(known)}")
        return replace(self, **values)

    @property
    def has_penalties(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)


RANGES = {
    "temperature": (0, 10),
    "top_p": (0, 1),
    "top_k": (0, 10**9),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 10),
    "max_tokens": (1, 10**9),
    "min_tokens": (0, 10**9),
    "top_logprobs": (0, MAX_TOP_LOGPROBS),
}


def check_sampling(sampling: object) -> None:
    """Raises SamplingError unless `sampling` is None, SamplingParams, or a mapping of its values."""
    if isinstance(sampling, Mapping):
        SamplingParams().with_values(**_named(sampling))
    elif sampling is not None and not isinstance(sampling, SamplingParams):
        raise SamplingError(
            f"sampling must be SamplingParams or a mapping of its values, not {type(sampling).__name__}"
        )


def _named(values: Mapping[Any, Any]) -> dict[str, Any]:
    for name in values:
        if not isinstance(name, str):
            raise SamplingError(f"there is no sampling parameter {name!r}; parameters have names")
    return dict(values)


def _stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, Iterable) or isinstance(stops, Mapping | bytes):
        raise SamplingError(f"stop must be a string or a list of strings, not {value!r}")
    stops = tuple(stops)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise SamplingError(f"stop must be strings that are not empty, not {text!r}")
    if len(stops) > MAX_STOPS:
        raise SamplingError(f"there can be {MAX_STOPS} stop strings, not {len(stops)}")
    return stops


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    if not value:
        return ()
    try:
        pairs = dict(value)
        # JSON writes the ids as strings.
        bias = {int(token): float(number) for token, number in pairs.items() if not isinstance(token, float)}
    except (TypeError, ValueError):
        raise SamplingError(f"logit_bias maps token ids to numbers; {value!r} does not") from None
    for token, number in bias.items():
        if token < 0 or not math.isfinite(number) or abs(number) > 100:
            raise SamplingError(
                f"logit_bias must be between -100 and 100 for token ids, not {token}: {number}"
            )
    return tuple(sorted(bias.items()))
