"""A plan before loading: weights, cache and working memory against what this machine has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mlx_qwen3.backend.device import available_memory
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import room_for
from mlx_qwen3.checkpoint.catalog import FAMILY, FamilyMember
from mlx_qwen3.checkpoint.context_length import MAX_FACTOR, native_context
from mlx_qwen3.checkpoint.memory import Need, needed
from mlx_qwen3.errors import InsufficientMemoryError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import DENSE_SHARE, compute_dtype

# A conversation that no context was asked for must be able to grow so far, in tokens.
LEAST_CONTEXT = 2048
# And so far before memory goes to fp32 copies of weights, which only make the CPU faster.
USUAL_CONTEXT = 8192


@dataclass(frozen=True)
class Demand:
    """What is to be loaded, and for which conversations.

    name: what the user calls it. weights: bytes of them. itemsize: bytes of the numbers computed
    with. context: tokens asked for, None for what fits. copies: bytes of fp32 copies that would help.
    """

    name: str
    config: ModelConfig
    weights: int
    itemsize: int = 2
    cache_config: CacheConfig = field(default_factory=CacheConfig)
    context: int | None = None
    copies: int = 0

    def need(self, tokens: int) -> Need:
        """Bytes that a conversation of `tokens` takes."""
        return needed(self.config, self.weights, tokens, self.cache_config, self.itemsize)

    def longest(self, room: int) -> int:
        """The longest conversation that `room` bytes hold, at most what YaRN was validated for; or 0."""
        most = max(int(native_context(self.config) * MAX_FACTOR), self.config.context_length)
        if self.cache_config.max_size is not None:
            return most if self.need(self.cache_config.max_size).total <= room else 0
        fits = 0
        while (rows := min(room_for(fits + 1), most)) > fits and self.need(rows).total <= room:
            fits = rows
        return fits


@dataclass(frozen=True)
class Plan:
    """A model that fits. Sizes are bytes, contexts tokens.

    context: how long a conversation may be without scaling positions further; longest: how long
    with it. need: what a conversation of `context` takes. copies: what fp32 copies may take.
    is_limited: the model reads further than `context`, for which there is no memory.
    """

    context: int
    longest: int
    need: Need
    copies: int
    room: int
    is_limited: bool = False

    @property
    def left(self) -> int:
        """What it leaves of the memory."""
        return max(0, self.room - self.need.total - self.copies)


def make_plan(demand: Demand, room: int | None = None, least: int = LEAST_CONTEXT) -> Plan:
    """Plan `demand` for a machine with `room` bytes (None: what this one has).

    Raises InsufficientMemoryError, naming what would fit, if the context asked for does not; if none
    was asked for, one of `least` tokens.
    """
    room = available_memory() if room is None else room
    natural = demand.config.context_length
    asked = demand.context or demand.cache_config.max_size
    least = asked or min(natural, least)
    if demand.need(least).total > room:
        raise InsufficientMemoryError(_refusal(demand, least, room))
    usual = demand.need(asked or min(natural, USUAL_CONTEXT)).total
    share = int((room - demand.weights) * DENSE_SHARE)
    copies = max(0, min(demand.copies, share, room - usual))
    longest = demand.context or demand.longest(room - copies)
    context = min(natural, longest)
    is_limited = demand.context is None and context < natural
    return Plan(context, longest, demand.need(asked or context), copies, room, is_limited)


def fitting(room: int | None = None) -> list[FamilyMember]:
    """Members of the family that hold a usual conversation in `room` bytes, smallest first."""
    room = available_memory() if room is None else room
    members = sorted(FAMILY.values(), key=lambda member: member.num_bytes)
    return [member for member in members if family_demand(member).need(USUAL_CONTEXT).total <= room]


def family_demand(member: FamilyMember, cache_config: CacheConfig | None = None) -> Demand:
    """What running a member of the family takes on this device, whether or not it is downloaded."""
    import mlx.core as mx

    itemsize = compute_dtype(mx.bfloat16).size
    return Demand(member.name, member.config, member.num_bytes, itemsize, cache_config or CacheConfig())


def _refusal(demand: Demand, tokens: int, room: int) -> str:
    what = "a window" if demand.cache_config.max_size else "a context"
    needs = f"{demand.name} with {what} of {tokens:,} tokens needs {_gb(demand.need(tokens).total)}"
    ways = _ways_out(demand, tokens, room)
    hint = f"try {_either(ways)}" if ways else "no Qwen3 model fits; close other programs"
    return f"{needs} GB of memory, and {_gb(room)} GB can be had; {hint}"


def _ways_out(demand: Demand, tokens: int, room: int) -> list[str]:
    """What to ask for instead, each of which fits."""
    ways, bits = [], _first(_fewer_bits(demand), lambda d: d.need(tokens).total <= room)
    if bits is not None:
        ways.append(f"--kv-bits {bits.cache_config.bits}")
    if shorter := _shorter(demand, room):
        ways.append(shorter)
    elif bits is None and (both := _first(_fewer_bits(demand), lambda d: bool(_shorter(d, room)))):
        ways.append(f"--kv-bits {both.cache_config.bits} {_shorter(both, room)}")
    smaller = [member for member in FAMILY.values() if member.num_bytes < demand.weights]
    for member in sorted(smaller, key=lambda member: -member.num_bytes):
        if family_demand(member, demand.cache_config).need(tokens).total <= room:
            return [*ways, f"--model {member.name}"]
    return ways


def _fewer_bits(demand: Demand) -> list[Demand]:
    return [
        replace(demand, cache_config=replace(demand.cache_config, bits=bits))
        for bits in (8, 4)
        if demand.cache_config.bits is None or bits < demand.cache_config.bits
    ]


def _shorter(demand: Demand, room: int) -> str:
    """The option that asks for the longest context, or window, that fits; none if that is too short."""
    if (size := demand.cache_config.max_size) is None:
        fits = min(demand.longest(room), demand.context or demand.config.context_length)
        return f"--context {_rounded(fits)}" if fits >= LEAST_CONTEXT else ""
    while size > LEAST_CONTEXT:
        size //= 2
        if replace(demand, cache_config=replace(demand.cache_config, max_size=size)).need(size).total <= room:
            return f"--max-kv-size {size}"
    return ""


def _rounded(tokens: int) -> int:
    return tokens // 1024 * 1024


def _first(demands: list[Demand], fits: Callable[[Demand], bool]) -> Demand | None:
    return next((demand for demand in demands if fits(demand)), None)


def _either(ways: list[str]) -> str:
    return ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])} or {ways[-1]}"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.{1 if num_bytes >= 10**8 else 3}f}"
