"""Plans the memory of a model before it is loaded: how long a context fits, or what would fit instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mlx_qwen3.backend.device import available_memory
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import capacity_for
from mlx_qwen3.checkpoint.catalog import FAMILY, FamilyMember
from mlx_qwen3.checkpoint.context_length import MAX_FACTOR, native_context
from mlx_qwen3.checkpoint.memory import MemoryEstimate, estimate_memory
from mlx_qwen3.errors import InsufficientMemoryError, Suggestion
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import compute_dtype

# If no context is asked for, a model is refused unless a conversation of this many tokens fits.
LEAST_CONTEXT = 2048
# What a model is expected to be used for, where it is not known yet.
USUAL_CONTEXT = 8192
CONTEXT_STEP = 1024  # suggested contexts are multiples of this


@dataclass(frozen=True)
class MemoryRequest:
    """What is to be loaded, and for how long a conversation.

    Attributes:
        name: What the user calls the model.
        config: The model's config.
        weights: Bytes of the weights.
        itemsize: Bytes per number of the compute dtype.
        cache_config: The KV cache of a conversation.
        context: Tokens asked for; None for as many as fit.
    """

    name: str
    config: ModelConfig
    weights: int
    itemsize: int = 2
    cache_config: CacheConfig = field(default_factory=CacheConfig)
    context: int | None = None

    def estimate(self, tokens: int) -> MemoryEstimate:
        """The memory of a conversation of `tokens`."""
        return estimate_memory(self.config, self.weights, tokens, self.cache_config, self.itemsize)

    def fits(self, tokens: int, available: int) -> bool:
        """Whether a conversation of `tokens` fits in `available` bytes."""
        return self.estimate(tokens).total <= available

    def longest_context(self, available: int) -> int:
        """The longest context that fits in `available` bytes, in tokens, within what YaRN allows; or 0."""
        most = max(int(native_context(self.config) * MAX_FACTOR), self.config.context_length)
        if self.cache_config.max_size is not None:
            return most if self.fits(self.cache_config.max_size, available) else 0
        longest = 0
        while (capacity := min(capacity_for(longest + 1), most)) > longest and self.fits(capacity, available):
            longest = capacity
        return longest


@dataclass(frozen=True)
class MemoryPlan:
    """A model that fits. Sizes are bytes, contexts tokens.

    Attributes:
        context: The longest conversation with positions scaled as the config says.
        longest_context: The longest conversation if positions may be scaled further.
        estimate: The memory of a conversation of `context`.
        available: The memory that was planned for.
        is_limited: Whether memory, not the model, limits `context`.
    """

    context: int
    longest_context: int
    estimate: MemoryEstimate
    available: int
    is_limited: bool = False

    @property
    def headroom(self) -> int:
        """Bytes that the plan leaves."""
        return max(0, self.available - self.estimate.total)


def plan_memory(
    request: MemoryRequest, available: int | None = None, least: int = LEAST_CONTEXT
) -> MemoryPlan:
    """Fit `request` into `available` bytes (None: what this machine has).

    Raises InsufficientMemoryError with suggestions if the context asked for does not fit, or, if none was
    asked for, if one of `least` tokens does not.
    """
    available = available_memory() if available is None else available
    unscaled = request.config.context_length
    asked = request.context or request.cache_config.max_size
    least = asked or min(unscaled, least)
    if not request.fits(least, available):
        raise _refusal(request, least, available)
    longest = request.context or request.longest_context(available)
    context = min(unscaled, longest)
    is_limited = request.context is None and context < unscaled
    return MemoryPlan(context, longest, request.estimate(asked or context), available, is_limited)


def members_that_fit(available: int | None = None) -> list[FamilyMember]:
    """Members of the family that fit with a usual conversation, smallest first. None: this machine."""
    available = available_memory() if available is None else available
    members = sorted(FAMILY.values(), key=lambda member: member.num_bytes)
    return [member for member in members if family_request(member).fits(USUAL_CONTEXT, available)]


def family_request(member: FamilyMember, cache_config: CacheConfig | None = None) -> MemoryRequest:
    """The request to run a member of the family on this device, downloaded or not."""
    import mlx.core as mx

    itemsize = compute_dtype(mx.bfloat16).size
    return MemoryRequest(
        member.name, member.config, member.num_bytes, itemsize, cache_config or CacheConfig()
    )


def _refusal(request: MemoryRequest, tokens: int, available: int) -> InsufficientMemoryError:
    what = "a window" if request.cache_config.max_size else "a context"
    problem = (
        f"{request.name} with {what} of {tokens:,} tokens needs {_gb(request.estimate(tokens).total)} GB "
        f"of memory, and {_gb(available)} GB can be had"
    )
    suggestions = list(_suggestions(request, tokens, available))
    if not suggestions:
        return InsufficientMemoryError(f"{problem}; no Qwen3 model fits; close other programs")
    return InsufficientMemoryError(problem, suggestions)


def _suggestions(request: MemoryRequest, tokens: int, available: int) -> Iterator[Suggestion]:
    """Arguments of Engine that fit: fewer bits, less context (if need be with fewer bits), smaller models."""
    bits = request.cache_config.bits or 16
    quantized = [_with_cache(request, bits=fewer) for fewer in (8, 4) if fewer < bits]
    fitting = next((other for other in quantized if other.fits(tokens, available)), None)
    if fitting is not None:
        yield {"kv_bits": fitting.cache_config.bits}
    if shorter := _shorter(request, available):
        yield shorter
    elif fitting is None:
        for other in quantized:
            if shorter := _shorter(other, available):
                yield {"kv_bits": other.cache_config.bits, **shorter}
                break
    smaller = [member for member in FAMILY.values() if member.num_bytes < request.weights]
    for member in sorted(smaller, key=lambda member: -member.num_bytes):
        if family_request(member, request.cache_config).fits(tokens, available):
            yield {"model": member.name}
            return


def _with_cache(request: MemoryRequest, **changes: int) -> MemoryRequest:
    return replace(request, cache_config=replace(request.cache_config, **changes))


def _shorter(request: MemoryRequest, available: int) -> Suggestion:
    """The longest context, or window, that fits; empty if that is shorter than LEAST_CONTEXT."""
    if (size := request.cache_config.max_size) is None:
        asked = request.context or request.config.context_length
        longest = min(request.longest_context(available), asked)
        return {"context": longest // CONTEXT_STEP * CONTEXT_STEP} if longest >= LEAST_CONTEXT else {}
    while size > LEAST_CONTEXT:
        size //= 2
        if _with_cache(request, max_size=size).fits(size, available):
            return {"max_kv_size": size}
    return {}


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.{1 if num_bytes >= 10**8 else 3}f}"
