"""Tensor parallel: each rank has some heads and columns of every layer; the ranks add up what they compute.

Built on the model's own layers, so that what `prepare` does for a device holds here too. Per pass there are
two sums a layer (attention, feed-forward), one for the ids, one for the embedding, and a gathering of logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.cache.layers import CacheLayers
from mlx_qwen3.distributed.group import Group
from mlx_qwen3.distributed.plan import Share
from mlx_qwen3.errors import DistributedError
from mlx_qwen3.generation.forward import hidden_at, logits_at
from mlx_qwen3.model.attention import Attention
from mlx_qwen3.model.mlp import MLP, SparseMoeBlock
from mlx_qwen3.model.qwen3 import Model


class PartialAttention(Attention):
    """Attention of some of the heads; the ranks' outputs are added."""

    _group: Group

    def merge_heads(self, output: mx.array) -> mx.array:
        return self._group.all_sum(super().merge_heads(output))


class PartialMLP(MLP):
    """A feed-forward of some of the columns; the ranks' outputs are added."""

    _group: Group

    def __call__(self, x: mx.array) -> mx.array:
        return self._group.all_sum(super().__call__(x))


class PartialMoeBlock(SparseMoeBlock):
    """All experts, some columns of each. Every rank routes alike; one sum for all experts of a token."""

    _group: Group

    def __call__(self, x: mx.array) -> mx.array:
        return self._group.all_sum(super().__call__(x))


PARTIAL: dict[type, type] = {Attention: PartialAttention, MLP: PartialMLP, SparseMoeBlock: PartialMoeBlock}


class PartialVocabulary(nn.Module):
    """An embedding or an output head of some of the vocabulary's rows."""

    def __init__(self, inner: nn.Module, share: Share, vocab_size: int, group: Group):
        super().__init__()
        self.inner = inner
        self._first, self._rows = share.vocabulary.start, share.vocabulary.length
        self._largest = -(-vocab_size // share.size)  # rows of the ranks that have the most
        self._vocab_size, self._group = vocab_size, group

    def __call__(self, x: mx.array) -> mx.array:
        """Token ids (B, L) -> (B, L, hidden); for a head, (B, L, hidden) -> logits (B, L, V)."""
        if mx.issubdtype(x.dtype, mx.floating):
            return self._gather(self.inner(x))
        local = x.astype(mx.int32) - self._first
        is_own = (local >= 0) & (local < self._rows)
        rows = self.inner(mx.where(is_own, local, 0))
        return self._group.all_sum(mx.where(is_own[..., None], rows, mx.zeros_like(rows)))

    def as_linear(self, x: mx.array) -> mx.array:
        """The tied output head: x (B, L, hidden) -> logits (B, L, V)."""
        return self._gather(self.inner.as_linear(x))

    def _gather(self, logits: mx.array) -> mx.array:
        *shape, rows = logits.shape
        logits = logits.reshape(1, -1, rows)
        if rows < self._largest:  # the last rank's, so that all send as much
            logits = mx.pad(logits, [(0, 0), (0, 0), (0, self._largest - rows)])
        gathered = self._group.all_gather(logits)  # (ranks, B * L, rows)
        return gathered.transpose(1, 0, 2).reshape(*shape, -1)[..., : self._vocab_size]


def make_partial(model: Model, share: Share, vocab_size: int, group: Group) -> None:
    """Have `model`, built and loaded as the part `share`, compute with the other ranks, in place."""
    for module in model.modules():
        if (partial := PARTIAL.get(type(module))) is not None:
            module.__class__ = partial
            module._group = group
    model.model.embed_tokens = PartialVocabulary(model.model.embed_tokens, share, vocab_size, group)
    if "lm_head" in model:
        model.lm_head = PartialVocabulary(model.lm_head, share, vocab_size, group)


class TensorShard:
    """One rank's part of a tensor-parallel model. Every rank calls `run` with the same arguments."""

    def __init__(self, model: Model, group: Group):
        self.model, self.group = model, group

    def run(
        self,
        ids: mx.array | None,
        lengths: Sequence[int],
        caches: Sequence[CacheLayers],
        rows: Sequence[int],
        step: int,
        head: bool = True,
    ) -> tuple[mx.array | None, list[Any]]:
        """Begin a pass: as `logits_at`, nothing is waited for.

        Args:
            ids: As for `logits_at`; None on the ranks that do not know them.
            lengths: How many of them each sequence has.
            caches: The caches of each.
            rows: After which ids logits are wanted.
            step: The number of the pass, which the ranks compare.
            head: False asks for hidden states in place of logits.

        Returns:
            The logits, and what `check` is given once it is computed.
        """
        total = sum(lengths)
        if ids is None:
            told = mx.zeros((total + 1,), mx.uint32)
        else:
            told = mx.concatenate([ids.astype(mx.uint32).flatten(), mx.array([step], mx.uint32)])
        told = self.group.all_sum(told)
        known = told[:total].reshape((1, -1) if len(lengths) == 1 else (-1, 1))
        logits = (logits_at if head else hidden_at)(self.model, known, lengths, caches, rows)
        computed = [told] + ([states(caches)] if logits is None else [logits])
        mx.async_eval(computed)  # type: ignore[no-untyped-call]
        return logits, computed

    def check(self, computed: list[Any], step: int) -> None:
        """Wait for a pass. Raises DistributedError if rank 0 was at another step."""
        mx.eval(computed)
        said = int(computed[0][-1].item())
        if said != step:
            raise DistributedError(
                f"it is at step {step} and rank 0 at step {said}; they computed different passes"
            )


def states(caches: Sequence[CacheLayers]) -> list[Any]:
    """The content of all caches."""
    return [each.states() for each in caches]
