"""Pipeline parallel: each rank has some of the layers, and hands the hidden states to the next.

Rank 0 has both ends, the embedding and the output head: ids and logits never travel. While a prompt is fed,
rank 0 does not wait, so that chunks are under way on all ranks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_qwen3.cache.batch import batched_layers
from mlx_qwen3.cache.layers import CacheLayers
from mlx_qwen3.distributed.group import Group
from mlx_qwen3.distributed.tensor_parallel import states
from mlx_qwen3.model.qwen3 import Model, causal_mask


class PipelineShard:
    """One rank's layers. Every rank calls `run` with the same arguments, but for the ids."""

    def __init__(self, model: Model, group: Group, dtype: mx.Dtype):
        """dtype: of the hidden states that are sent."""
        self.model, self.group = model, group
        self._dtype = dtype

    def run(
        self,
        ids: mx.array | None,
        lengths: Sequence[int],
        caches: Sequence[CacheLayers],
        rows: Sequence[int],
        step: int,  # noqa: ARG002  # the messages are numbered, and there is no sum to compare it in
        head: bool = True,
    ) -> tuple[mx.array | None, list[Any]]:
        """Begin a pass, as TensorShard does."""
        group, total = self.group, sum(lengths)
        is_alone = len(lengths) == 1
        x = self._inputs(ids, (1, total) if is_alone else (total, 1))
        layers = caches[0] if is_alone else batched_layers(caches, lengths)
        mask = causal_mask(x.shape[1], layers)
        for layer, cache in zip(self.model.layers, layers, strict=True):
            x = layer(x, mask, cache)
        logits: mx.array | None = None
        computed: list[Any] = []
        is_last = group.rank == group.size - 1
        if not is_last:
            sent = group.send(x.astype(self._dtype), group.rank + 1)
            computed.append(sent)
        if rows:
            x, wanted = x.reshape(total, -1), mx.array(list(rows))
            back: mx.array | None = None
            if is_last and group.rank:
                computed.append(group.send(x[wanted].astype(self._dtype), 0))
            elif group.rank == 0:
                back = x[wanted] if is_last else self._returned(len(rows), sent)
            if back is not None:
                logits = self.model.model.norm(back)
                if head:
                    logits = self.model.output_head(logits[None])[0]
                computed.append(logits)
        computed = computed or [states(caches)]
        mx.async_eval(computed)  # type: ignore[no-untyped-call]
        return logits, computed

    def check(self, computed: list[Any], step: int) -> None:  # noqa: ARG002  # as in `run`
        """Wait for a pass."""
        mx.eval(computed)

    def _inputs(self, ids: mx.array | None, shape: tuple[int, int]) -> mx.array:
        """Hidden states (B, L, hidden) of the ids, or of the rank before."""
        if self.group.rank == 0:
            assert ids is not None  # rank 0 knows the ids
            x: mx.array = self.model.model.embed_tokens(ids)
            return x
        return self.group.receive((*shape, self.model.args.hidden_size), self._dtype, self.group.rank - 1)

    def _returned(self, count: int, sent: mx.array) -> mx.array:
        """The last rank's hidden states (count, hidden), asked for after `sent` has left."""
        mx.async_eval(sent)  # type: ignore[no-untyped-call]
        return self.group.receive((count, self.model.args.hidden_size), self._dtype, self.group.size - 1)
