"""BatchKVCache against a cache for each text, and attention over its rows by every way."""

from __future__ import annotations

from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_qwen3.cache.batch import BatchKVCache
from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.errors import CacheError
from mlx_qwen3.model import attention_kernels as attend_module
from mlx_qwen3.model.attention_kernels import attend

D, HEADS, KEY_HEADS = 32, 4, 2
QUICK = settings(max_examples=15, deadline=None)

# What happens to a batch: texts of these lengths join, each grows by so many tokens, or those of the
# numbers (modulo how many there are) leave.
joins = st.tuples(st.just("join"), st.lists(st.integers(0, 9), min_size=1, max_size=3))
growths = st.tuples(st.just("grow"), st.integers(1, 3))
leaving = st.tuples(st.just("leave"), st.sets(st.integers(0, 5), max_size=2))
histories = st.lists(joins | growths | leaving, max_size=12)


def rows(batch: int, length: int, seed: int) -> tuple[mx.array, mx.array, mx.array]:
    """Queries, keys and values."""
    keys = mx.random.split(mx.random.key(seed), 3)
    shapes = [(batch, heads, length, D) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    q, k, v = (mx.random.normal(shape, key=key) for shape, key in zip(shapes, keys, strict=True))
    return q, k, v


class Pair:
    """A batch, and a cache for each of its texts."""

    def __init__(self, bits: int | None):
        self.batch = BatchKVCache(bits, 32)
        self.alone: list[KVCache] = []
        self.bits = bits

    def new(self) -> KVCache:
        return KVCache() if self.bits is None else QuantizedKVCache(32, self.bits)

    def join(self, lengths: list[int], seed: int) -> None:
        together = self.new()
        _, k, v = rows(len(lengths), max(lengths) + 1, seed)
        together.update_and_fetch(k, v)  # the last token, and the shorter texts' ends, mean nothing
        self.batch.extend(together, lengths)
        for number, length in enumerate(lengths):
            cache = self.new()
            if length:
                cache.update_and_fetch(k[number : number + 1, :, :length], v[number : number + 1, :, :length])
            self.alone.append(cache)

    def grow(self, length: int, seed: int) -> None:
        if not self.alone:
            return
        q, k, v = rows(len(self.alone), length, seed)
        mask = self.batch.make_mask(length)
        outputs = attend(q, *self.batch.update_and_fetch(k, v), D**-0.5, mask)
        for number, cache in enumerate(self.alone):
            own = slice(number, number + 1)
            mask = cache.make_mask(length)
            expected = attend(q[own], *cache.update_and_fetch(k[own], v[own]), D**-0.5, mask)
            assert mx.abs(outputs[own] - expected).max().item() < 1e-5

    def leave(self, numbers: set[int], seed: int) -> None:
        going = {number % len(self.alone) for number in numbers} if self.alone else set()
        keep = [number for number in range(len(self.alone)) if number not in going]
        keep = keep[seed % 2 :] + keep[: seed % 2]  # in any order
        self.batch.filter(keep)
        self.alone = [self.alone[number] for number in keep]

    def play(self, history: list[tuple[str, Any]]) -> None:
        for seed, (act, what) in enumerate(history):
            getattr(self, act)(what, seed)
            assert self.batch.lengths == [cache.offset for cache in self.alone]
        self.grow(1, 99)


@pytest.mark.parametrize("bits", [None, 4, 8])
@QUICK
@given(history=histories)
def test_each_text_is_as_in_a_cache_of_its_own(bits: int | None, history: list[tuple[str, Any]]) -> None:
    Pair(bits).play(history)


@pytest.mark.parametrize("way", ["tiles", "head by head"])
@pytest.mark.parametrize("bits", [None, 8])
@QUICK
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=4), length=st.integers(1, 20))
def test_every_way_of_attention_heeds_the_mask(
    way: str, bits: int | None, lengths: list[int], length: int
) -> None:
    pair = Pair(bits)
    pair.join(lengths, 0)
    pair.grow(length, 1)  # the reference way
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attend_module, "FEW_QUERIES", 0)
        patch.setattr(attend_module, "TILE_SCORES", 8)
        patch.setattr(attend_module, "TILE_KEYS", 4)
        patch.setattr(attend_module, "TILE_QUERIES", 4)
        if way == "head by head":
            patch.setattr(attend_module, "_tiled", attend_module._head_by_head)
            if bits is None:
                patch.setattr(attend_module, "_tiled", attend_module._kernel)
        pair.grow(length, 2)


def test_room_follows_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchKVCache, "step", 4)
    pair = Pair(None)
    pair.join([40, 3, 5, 2], 0)
    room = pair.batch.nbytes
    pair.grow(1, 1)
    pair.leave({0}, 0)
    pair.grow(1, 2)
    assert pair.batch.nbytes < room / 3  # the long one took the most
    pair.leave({0, 1}, 0)
    assert pair.batch.nbytes < room / 12


def test_another_number_of_texts_is_refused() -> None:
    pair = Pair(None)
    pair.join([3, 4], 0)
    _, k, v = rows(3, 1, 0)
    with pytest.raises(CacheError, match="a batch of 2 texts, not 3"):
        pair.batch.update_and_fetch(k, v)
