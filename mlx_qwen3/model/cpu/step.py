"""`model(inputs, cache)` on a Linux CPU, computed at once by kernels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import eval_unless_traced
from mlx_qwen3.backend.native.program import prepare
from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.batch import SequenceCaches
from mlx_qwen3.cache.buffers import Place
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.window.rotating import RotatingKVCache
from mlx_qwen3.model.attention import CacheMask
from mlx_qwen3.model.compiled_step import Contents
from mlx_qwen3.model.cpu.few_rows import FewRows
from mlx_qwen3.model.cpu.many_rows import ManyRows, Span, append
from mlx_qwen3.model.cpu.rotations import Rotations
from mlx_qwen3.model.cpu.weights import Weights
from mlx_qwen3.model.qwen3 import Model

# Programs that are kept, one for each number of rows.
KEPT_PROGRAMS = 20
NOWHERE = Place(0, 0, 0)


class CpuStep:
    """Passes of one model, with the weights that it had when this was made."""

    max_tokens = 2**31
    computes_now = True

    def __init__(self, model: Model):
        self._weights = Weights(model)
        self._contents = Contents(model)  # after Weights, which may copy a norm
        prepare(self._weights.formats, self._weights.expert_formats)
        self._many = ManyRows(self._weights)
        self._few: dict[int, FewRows] = {}
        self._rotations = Rotations(self._weights.shape.head_dim)
        self._few_rows = self._weights.fits_few_rows

    def is_of(self, model: Model) -> bool:
        """Whether `model` still has the modules and arrays of then, and no others."""
        return self._contents.are_of(model)

    def __call__(self, inputs: mx.array, mask: CacheMask, cache: Sequence[Cache]) -> mx.array | None:
        """inputs (B, L) -> logits (B, L, V); None for inputs that this does not compute."""
        return self._run(inputs, mask, cache, wants_logits=True)

    def hidden_states(self, inputs: mx.array, mask: CacheMask, cache: Sequence[Cache]) -> mx.array | None:
        """inputs (B, L) -> hidden states (B, L, hidden), for the output head; or None."""
        return self._run(inputs, mask, cache, wants_logits=False)

    def _run(
        self, inputs: mx.array, mask: CacheMask, cache: Sequence[Cache], wants_logits: bool
    ) -> mx.array | None:
        is_batch = isinstance(cache[0], SequenceCaches)
        if not inputs.size or (len(inputs) != 1 and not is_batch) or not eval_unless_traced(inputs):
            return None
        ids = np.asarray(inputs).astype(np.int64).reshape(-1)
        if ids.min() < 0 or ids.max() >= self._weights.embedding.stored.outputs:
            return None
        spans = _spans(cache, mask, len(ids))
        few, many = self._divided(spans)
        if not few:
            result = self._run_many(ids, spans, wants_logits)
        elif not many:
            result = self._run_few(ids, spans, wants_logits)
        else:
            # The few rows would each cost the many much of a program, and their numbers depend on no other.
            parts = [(few, self._run_few), (many, self._run_many)]
            computed = [
                (own, np.array(run(ids[_rows(own)], _moved(own), wants_logits))) for own, run in parts
            ]
            result = np.empty((len(ids), computed[0][1].shape[1]), np.float32)
            for own, values in computed:
                result[_rows(own)] = values
        return mx.array(result).reshape(*inputs.shape, -1)

    def _divided(self, spans: list[Span]) -> tuple[list[Span], list[Span]]:
        """The sequences that one program computes, and the others."""
        plain = [span for span in spans if all(_is_plain(layer, span.length) for layer in span.caches)]
        if len(plain) == len(spans) and sum(span.length for span in spans) <= self._few_rows:
            return spans, []
        few = [span for span in plain if span.length == 1]
        if len(few) > self._few_rows:
            return [], spans
        return few, [span for span in spans if span not in few]

    def _rotate(self, out: Any, spans: list[Span]) -> None:
        """Write the rotations of the new rows to `out`, (T, D)."""
        # All layers rotate alike.
        rope = self._weights.layers[0].rope
        self._rotations.fill(out, rope, ((int(span.caches[0].offset), span.length) for span in spans))

    def _run_many(self, ids: Any, spans: list[Span], wants_logits: bool) -> Any:
        rotations = np.empty((len(ids), self._weights.shape.head_dim), np.float32)
        self._rotate(rotations, spans)
        result = self._many.hidden(ids, rotations, spans)
        return self._many.logits(result) if wants_logits else result

    def _run_few(self, ids: Any, spans: list[Span], wants_logits: bool) -> Any:
        few = self._few.get(len(ids))
        if few is None:
            if len(self._few) >= KEPT_PROGRAMS:
                self._few.clear()
            few = self._few[len(ids)] = FewRows(self._weights, len(ids))
        few.ids[:] = ids
        self._rotate(few.rotations, spans)
        longest = self._fill_sequences(few.sequences, spans)
        result = few.run(len(spans), longest, wants_logits)
        _extend(spans, few.new_rows, few.sequences[..., -1])
        return result

    def _fill_sequences(self, table: Any, spans: list[Span]) -> int:
        """What `attend` is told of each layer and sequence. Returns the most rows that a query sees."""
        for number, span in enumerate(spans):
            table[:, number] = [_record(layer, span) for layer in span.caches]
        return int((table[:, : len(spans), 3] + table[:, : len(spans), 5]).max())


def _spans(cache: Sequence[Any], mask: CacheMask, length: int) -> list[Span]:
    """The sequences of a pass over `length` tokens."""
    if not isinstance(cache[0], SequenceCaches):
        return [Span(0, length, cache, mask)]
    masks: Any = mask
    return [
        Span(part.start, part.stop, [layer.caches[number] for layer in cache], masks[number])
        for number, part in enumerate(cache[0].parts)
    ]


def _rows(spans: list[Span]) -> Any:
    """The numbers of their rows in a pass."""
    return np.concatenate([np.arange(span.start, span.stop) for span in spans])


def _moved(spans: list[Span]) -> list[Span]:
    """The same sequences in a pass of their own."""
    stops = list(accumulate(span.length for span in spans))
    return [
        Span(stop - span.length, stop, span.caches, span.mask)
        for span, stop in zip(spans, stops, strict=True)
    ]


def _is_plain(cache: Cache, length: int) -> bool:
    """Whether a cache holds fp32, and `length` new tokens see one set of its rows."""
    if type(cache) is RotatingKVCache:
        if length > 1 and cache.offset + length > cache.max_size:
            return False
    elif type(cache) is not KVCache:
        return False
    return cache.empty() or cache.is_float32


def _record(cache: Any, span: Span) -> tuple[int, ...]:
    """What `attend` is told of a sequence in a layer: the `SEQUENCE_WORDS`."""
    # The next token of a window replaces the row in this slot, and does not see it.
    slot = cache.before_token() if type(cache) is RotatingKVCache else None
    held = cache.size()
    keys, values = (NOWHERE, NOWHERE) if cache.empty() else cache.places()
    assert keys.step == values.step
    appends = type(cache) is KVCache and held + span.length <= min(keys.room, values.room)
    unseen = -1 if slot is None else slot
    return keys.address, values.address, keys.step, held, span.start, span.length, unseen, appends


def _extend(spans: list[Span], rows: Any, appended: Any) -> None:
    """Append new keys and values (layers, 2, T, H_kv, D) to the caches.

    appended (layers, sequences): where `attend` has written them.
    """
    for number, span in enumerate(spans):
        for place, layer in enumerate(span.caches):
            if appended[place, number]:
                cast(KVCache, layer).advance(span.length)
    if appended[:, : len(spans)].all():
        return
    heads_first = np.ascontiguousarray(rows.transpose(0, 1, 3, 2, 4))
    layers, _, heads, length, head_dim = heads_first.shape
    all_rows = mx.array(heads_first.reshape(2 * layers, 1, heads, length, head_dim))
    for number, span in enumerate(spans):
        own = all_rows if len(spans) == 1 else all_rows[..., span.start : span.stop, :]
        pieces = mx.split(own, 2 * layers)
        for place, layer in enumerate(span.caches):
            if not appended[place, number]:
                _append(layer, pieces[2 * place].squeeze(0), pieces[2 * place + 1].squeeze(0))


def _append(cache: Any, keys: mx.array, values: mx.array) -> None:
    """`many_rows.append`, after which a full cache's rows are its own."""
    if type(cache) is not KVCache:
        append(cache, keys, values)
        return
    before = cache.nbytes
    cache.extend(keys, values)
    if before and cache.nbytes != before:
        cache.places()  # evaluates them
        mx.clear_cache()
