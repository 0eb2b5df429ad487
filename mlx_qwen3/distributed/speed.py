"""What ranks send per token, counted, and how fast a split model can be over a link: a model of its time.

A ring of N ranks adds up an array in 2 (N - 1) steps, in each of which every rank sends 1/N of it
(https://www.cs.fsu.edu/~xyuan/paper/09jpdc.pdf). Checked against measurements in docs/distributed.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_qwen3.distributed.plan import TENSOR
from mlx_qwen3.model.config import ModelConfig


@dataclass(frozen=True)
class Link:
    """A connection of neighbours. bandwidth: bytes a second, one way. latency: seconds of a small message."""

    name: str
    bandwidth: float
    latency: float


# Usual figures, not measured by this project: TCP over each, and RDMA over Thunderbolt 5 (JACCL).
LINKS = (
    Link("1 GbE", 0.117e9, 150e-6),
    Link("10 GbE", 1.15e9, 80e-6),
    Link("Thunderbolt 4", 2.5e9, 60e-6),
    Link("Thunderbolt 5", 5.0e9, 60e-6),
    Link("Thunderbolt 5, RDMA", 6.0e9, 8e-6),
)


@dataclass(frozen=True)
class Traffic:
    """What one rank sends in a pass. nbytes: in all. steps: messages that must follow each other."""

    nbytes: float
    steps: int


def traffic(
    config: ModelConfig, mode: str, size: int, tokens: int = 1, itemsize: int = 2, rows: int = 1
) -> Traffic:
    """What the busiest rank sends in a pass over `tokens` new tokens, with logits after `rows` of them.

    Args:
        config: Of the whole model.
        mode: `tensor` or `pipeline`.
        size: Ranks.
        tokens: New tokens of the pass.
        itemsize: Bytes of a number.
        rows: Tokens after which logits are wanted.
    """
    hidden = tokens * config.hidden_size * itemsize
    if mode != TENSOR:
        back = rows * config.hidden_size * itemsize
        return Traffic(max(hidden, back), size)
    # Two sums a layer, the embedding, and the ids with the number of the step. A chunk of a prompt without
    # logits leaves out what only they need: the last attention's sum and the last feed-forward's.
    sums = 2 * config.num_hidden_layers + 1 - (0 if rows else 2)
    logits = rows * -(-config.vocab_size // size) * itemsize
    nbytes = 2 * (size - 1) / size * (sums * hidden + 4 * (tokens + 1)) + (size - 1) * logits
    steps = (sums + 1) * 2 * (size - 1) + (size - 1 if rows else 0)
    return Traffic(nbytes, steps)


def seconds_per_token(
    config: ModelConfig, mode: str, size: int, link: Link, alone: float, itemsize: int = 2
) -> float:
    """The time of a token over `link`, if one machine takes `alone` seconds for it and all are alike.

    Tensor parallel divides the work; a pipeline's ranks work one after the other on a single text.
    """
    sent = traffic(config, mode, size, itemsize=itemsize)
    work = alone / size if mode == TENSOR else alone
    hops = sent.nbytes if mode == TENSOR else sent.nbytes * size
    return work + sent.steps * link.latency + hops / link.bandwidth
