"""Which part of a model each rank has, as plain values. Refuses what cannot be split, with sizes that can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from mlx_qwen3.errors import DistributedError
from mlx_qwen3.model.config import ModelConfig

TENSOR, PIPELINE = "tensor", "pipeline"
MODES = (TENSOR, PIPELINE)
MOST_RANKS = 64


class Span(NamedTuple):
    """From `start` up to `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Share:
    """The part of one rank.

    Attributes:
        rank, size: Which rank, of how many.
        mode: `tensor` or `pipeline`.
        layers: The layers it has.
        heads, kv_heads: Of each layer.
        columns: Of each dense feed-forward's intermediate size.
        expert_columns: Of each expert's intermediate size.
        vocabulary: Rows of the embedding and of the output head. Empty: it has neither.
    """

    rank: int
    size: int
    mode: str
    layers: Span
    heads: Span
    kv_heads: Span
    columns: Span
    expert_columns: Span
    vocabulary: Span

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def has_embedding(self) -> bool:
        return self.vocabulary.length > 0

    def to_values(self) -> dict[str, object]:
        """Itself as JSON has it."""
        spans = {name: list(getattr(self, name)) for name in SPANS}
        return {"rank": self.rank, "size": self.size, "mode": self.mode, **spans}

    @classmethod
    def from_values(cls, values: dict[str, object]) -> Share:
        """What `to_values` returned. Raises DistributedError."""
        try:
            spans = {name: Span(*map(int, values[name])) for name in SPANS}  # type: ignore[call-overload]
            rank, size = int(values["rank"]), int(values["size"])  # type: ignore[call-overload]
            return cls(rank, size, str(values["mode"]), **spans)
        except (KeyError, TypeError, ValueError):
            raise DistributedError("rank 0 sent a part of the model that cannot be read") from None

    def config(self, config: ModelConfig) -> ModelConfig:
        """The config of a model of this rank's widths, all layers counted; for building and for memory."""
        return replace(
            config,
            num_attention_heads=self.heads.length,
            num_key_value_heads=self.kv_heads.length,
            intermediate_size=self.columns.length,
            moe_intermediate_size=self.expert_columns.length,
            vocab_size=max(1, self.vocabulary.length),
        )


SPANS = ("layers", "heads", "kv_heads", "columns", "expert_columns", "vocabulary")


def check_mode(mode: object, size: int = 1) -> None:
    """Raise DistributedError unless `mode` is one of MODES and there are ranks to split over."""
    if mode not in MODES:
        raise DistributedError(f"distributed must be {' or '.join(MODES)}, not {mode!r}")
    if not 1 <= size <= MOST_RANKS:
        raise DistributedError(f"a model is split over at most {MOST_RANKS} ranks, not {size}")


def plan_tensor(config: ModelConfig, size: int) -> list[Share]:
    """Split every layer over `size` ranks: attention by heads, feed-forwards and experts by columns.

    Raises DistributedError, which names the sizes that work.
    """
    shares = _tensor_shares(config, size)
    if isinstance(shares, str):
        works = [str(other) for other in range(2, 17) if not isinstance(_tensor_shares(config, other), str)]
        advice = f"sizes that work: {', '.join(works)}" if works else "no number of ranks splits it"
        advice += f"; or use pipeline, which takes up to {config.num_hidden_layers}"
        raise DistributedError(f"tensor parallel over {size} ranks cannot be: {shares}; {advice}")
    return shares


def _tensor_shares(config: ModelConfig, size: int) -> list[Share] | str:
    """The shares of all ranks, or why there are none."""
    heads = _split_heads(config, size)
    if isinstance(heads, str):
        return heads
    parts: dict[str, list[Span]] = {}
    for name, columns in (
        ("intermediate_size", config.intermediate_size if _has_dense_layer(config) else size),
        ("moe_intermediate_size", config.moe_intermediate_size if config.num_experts else 0),
    ):
        group = _group_size(config, "down_proj")
        if columns and columns % group:
            group = 1  # such a matrix is not quantized
        if columns and columns // group < size:
            return f"{name} {columns:,} holds {columns // group} quantization groups of {group}"
        parts[name] = _even(columns // group, size, group) if columns else [Span(0, 0)] * size
    rows = -(-config.vocab_size // size)
    if rows * (size - 1) >= config.vocab_size:
        return f"the vocabulary has {config.vocab_size:,} rows"
    whole = Span(0, config.num_hidden_layers)
    dense, sparse = parts["intermediate_size"], parts["moe_intermediate_size"]
    return [
        Share(
            rank,
            size,
            TENSOR,
            whole,
            *heads[rank],
            dense[rank],
            sparse[rank],
            Span(rank * rows, min((rank + 1) * rows, config.vocab_size)),
        )
        for rank in range(size)
    ]


def _split_heads(config: ModelConfig, size: int) -> list[tuple[Span, Span]] | str:
    """Query heads and key/value heads of each rank, or why they cannot be split.

    A key/value head stays with its queries. Where there are more ranks than key/value heads, several ranks
    hold the same one, and share its queries.
    """
    queries, keys = config.num_attention_heads, config.num_key_value_heads
    group, values = queries // keys, _group_size(config, "o_proj")
    if size <= keys:
        units = _even(keys, size)
        spans = [(Span(unit.start * group, unit.stop * group), unit) for unit in units]
    elif size % keys or group % (size // keys):
        return f"{keys} key/value heads with {group} query heads each do not divide among {size} ranks"
    else:
        each = queries // size
        spans = [
            (Span(rank * each, (rank + 1) * each), Span(rank * keys // size, rank * keys // size + 1))
            for rank in range(size)
        ]
    if (queries * config.head_dim) % values == 0:
        for heads, _ in spans:
            if heads.start * config.head_dim % values or heads.stop * config.head_dim % values:
                return (
                    f"{heads.length} heads of {config.head_dim} values do not fill quantization groups of "
                    f"{values}"
                )
    return spans


def plan_pipeline(
    config: ModelConfig, layer_bytes: Sequence[int], end_bytes: int, memories: Sequence[int]
) -> list[Share]:
    """Give each rank consecutive layers, as many as suits its memory. Rank 0 also has both ends.

    Args:
        config: The model's config.
        layer_bytes: Bytes of each layer, weights and KV cache.
        end_bytes: Of embedding, output head and final norm.
        memories: Bytes that each rank has.

    Raises DistributedError if there are more ranks than layers.
    """
    size, count = len(memories), len(layer_bytes)
    if size > count:
        raise DistributedError(
            f"pipeline over {size} ranks cannot be: the model has {count} layers; use at most {count} ranks"
        )
    bounds = split_layers(layer_bytes, end_bytes, memories)
    whole = (
        Span(0, config.num_attention_heads),
        Span(0, config.num_key_value_heads),
        Span(0, config.intermediate_size),
        Span(0, config.moe_intermediate_size),
    )
    return [
        Share(rank, size, PIPELINE, Span(*span), *whole, Span(0, 0 if rank else config.vocab_size))
        for rank, span in enumerate(bounds)
    ]


def split_layers(
    layer_bytes: Sequence[int], end_bytes: int, memories: Sequence[int]
) -> list[tuple[int, int]]:
    """Consecutive layers for each rank, one at least, so that the fullest rank is as empty as can be."""
    count, size = len(layer_bytes), len(memories)
    sums = [0]
    for each in layer_bytes:
        sums.append(sums[-1] + each)

    def fill(rank: int, start: int, stop: int) -> float:
        return (sums[stop] - sums[start] + (end_bytes if rank == 0 else 0)) / max(1, memories[rank])

    # best[stop]: the fullest rank of those so far, if they have the layers before `stop`; and where the
    # last of them starts.
    best = {0: (0.0, 0)}
    history: list[dict[int, tuple[float, int]]] = []
    for rank in range(size):
        following: dict[int, tuple[float, int]] = {}
        for start, (fullest, _) in best.items():
            for stop in range(start + 1, count - (size - rank - 1) + 1):
                value = max(fullest, fill(rank, start, stop))
                if stop not in following or value < following[stop][0]:
                    following[stop] = (value, start)
        history.append(following)
        best = following
    stop, spans = count, []
    for following in reversed(history):
        start = following[stop][1]
        spans.append((start, stop))
        stop = start
    return spans[::-1]


def describe(shares: Iterable[Share]) -> str:
    """The split in a line: what each rank has."""
    return "; ".join(f"rank {share.rank}: {_describe(share)}" for share in shares)


def _describe(share: Share) -> str:
    if share.mode == PIPELINE:
        ends = ", embedding and head" if share.is_first else ""
        return f"layers {share.layers.start} to {share.layers.stop - 1}{ends}"
    experts = (
        f", {share.expert_columns.length:,} columns of each expert" if share.expert_columns.length else ""
    )
    dense = f", {share.columns.length:,} columns" if share.columns.length > 1 else ""
    return f"{share.heads.length} heads ({share.kv_heads.length} key/value){dense}{experts}"


def _even(units: int, size: int, step: int = 1) -> list[Span]:
    """`units` of `step` each, as evenly as can be; earlier ranks get those left over."""
    bounds = [-(-units * rank // size) * step for rank in range(size + 1)]
    return [Span(start, stop) for start, stop in pairwise(bounds)]


def _has_dense_layer(config: ModelConfig) -> bool:
    return any(not config.is_sparse_layer(index) for index in range(config.num_hidden_layers))


def _group_size(config: ModelConfig, projection: str) -> int:
    """The values of a row of `projection` that must stay together in every layer; 1 without quantization."""
    quantization = config.quantization
    if quantization is None:
        return 1
    layers = [quantization, *quantization.overrides.values()]
    paths = [None, *quantization.overrides]
    sizes = [
        layer.group_size
        for path, layer in zip(paths, layers, strict=True)
        if layer is not None and (path is None or path.endswith(projection))
    ]
    return math.lcm(*sizes) if sizes else 1
