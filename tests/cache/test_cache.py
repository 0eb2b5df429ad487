"""KVCache: growth, masks, trimming, state; CacheConfig; and which tokens a PromptCache holds."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_qwen3.cache.base import roll_back
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import KVCache, capacity_for
from mlx_qwen3.cache.prompt_cache import PromptCache, common_prefix, make_prompt_cache
from mlx_qwen3.errors import CacheError
from mlx_qwen3.model.qwen3 import Model


def rows(start: int, count: int, batch: int = 1) -> tuple[mx.array, mx.array]:
    """Keys and values (B, 2, count, 4) whose values are their positions."""
    keys = mx.broadcast_to(mx.arange(start, start + count)[:, None].astype(mx.float32), (batch, 2, count, 4))
    return keys, -keys


def positions(cache: KVCache) -> list[int]:
    return cache.state[0][0, 0, :, 0].tolist()


@pytest.mark.parametrize("sizes", [[1] * 5, [255, 1, 1], [256, 256, 1], [700, 3, 300], [1, 600]])
def test_grows_across_steps(sizes: list[int]) -> None:
    cache, total = KVCache(), 0
    for size in sizes:
        keys, values = cache.update_and_fetch(*rows(total, size, batch=2))
        total += size
        assert cache.offset == cache.size() == total
        assert keys.shape == values.shape == (2, 2, total, 4)
    assert positions(cache) == list(range(total))
    assert mx.array_equal(values, -keys)
    assert cache.keys.shape[2] % KVCache.step == 0


def test_growing_copies_rarely_and_holds_little_more_than_needed() -> None:
    cache, growths, capacity = KVCache(), 0, 0
    for position in range(20_000):
        cache.offset = position  # as if filled: only the capacity is tested
        cache.update_and_fetch(*rows(position, 1))
        growths += cache.keys.shape[2] != capacity
        capacity = cache.keys.shape[2]
    assert growths < 60
    assert capacity < 20_000 * 17 / 16 + 2 * KVCache.step


@pytest.mark.parametrize("trimmed", [0, 1, 40, 300])
def test_trim_then_replay_equals_never_written(trimmed: int) -> None:
    cache = KVCache()
    cache.update_and_fetch(*rows(1000, 300))
    assert cache.trim(trimmed) == trimmed
    cache.update_and_fetch(*rows(5000, 260))
    assert positions(cache) == [*range(1000, 1300 - trimmed), *range(5000, 5260)]


def test_trim_removes_at_most_all_tokens() -> None:
    cache = KVCache()
    assert cache.is_trimmable()
    assert cache.trim(3) == 0
    cache.update_and_fetch(*rows(0, 2))
    assert cache.trim(-1) == 0
    assert cache.trim(9) == 2
    assert cache.offset == 0


def test_state_round_trip() -> None:
    cache = KVCache()
    assert cache.empty()
    assert cache.nbytes == 0
    cache.update_and_fetch(*rows(0, 300))
    other = KVCache()
    other.state, other.meta_state = cache.state, cache.meta_state
    assert (other.offset, other.empty()) == (300, False)
    for one in (cache, other):
        one.update_and_fetch(*rows(300, 1))
    assert positions(other) == positions(cache) == list(range(301))
    assert cache.nbytes == 2 * cache.keys.nbytes


def test_state_of_an_empty_cache() -> None:
    cache = KVCache()
    other = KVCache()
    other.update_and_fetch(*rows(0, 3))
    other.state = cache.state
    assert other.offset == 0
    assert other.empty()


def test_a_held_state_is_not_changed_by_later_writes() -> None:
    cache = KVCache()
    cache.update_and_fetch(*rows(0, 3))
    keys = cache.state[0]
    cache.trim(2)
    cache.update_and_fetch(*rows(70, 2))
    mx.eval(cache.state)
    assert keys[0, 0, :, 0].tolist() == [0, 1, 2]


def test_meta_state_is_empty() -> None:
    with pytest.raises(CacheError, match="meta state"):
        KVCache().meta_state = "x"


@pytest.mark.parametrize(("held", "length"), [(0, 1), (0, 4), (5, 1), (5, 3)])
@pytest.mark.parametrize("window", [None, 3])
def test_masks_are_true_where_a_query_sees_a_key(held: int, length: int, window: int | None) -> None:
    cache = KVCache()
    if held:
        cache.update_and_fetch(*rows(0, held))
    expected = np.array(
        [
            [key <= query and (window is None or key > query - window) for key in range(held + length)]
            for query in range(held, held + length)
        ]
    )
    mask = cache.make_mask(length, return_array=True, window_size=window)
    assert np.array_equal(expected if mask is None else np.array(mask), expected)
    if window is None:
        assert cache.make_mask(length) == ("causal" if length > 1 else None)


def test_common_prefix() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([], [1]) == 0


def test_prompt_cache_keeps_what_a_new_prompt_shares(tiny_model: Model) -> None:
    cache = PromptCache(tiny_model)
    assert cache.begin([1, 2, 3]) == [1, 2, 3]
    tiny_model(mx.array([[1, 2, 3]]), cache.layers)
    cache.extend([1, 2, 3])
    assert cache.ids == [1, 2, 3]
    assert cache.reusable([1, 2, 9, 9]) == 2
    assert cache.begin([1, 2, 9, 9]) == [9, 9]
    assert cache.layers[0].offset == 2
    assert cache.begin([1, 2]) == [2]  # one token is left to feed
    assert cache.nbytes == sum(layer.nbytes for layer in cache.layers) > 0


def test_one_cache_entry_a_layer(tiny_model: Model) -> None:
    assert len(make_prompt_cache(tiny_model)) == tiny_model.args.num_hidden_layers


def test_the_start_of_a_prompt_is_fed_whole(tiny_model: Model) -> None:
    cache = PromptCache(tiny_model)
    assert cache.begin_prefix([1, 2, 3]) == [1, 2, 3]
    tiny_model(mx.array([[1, 2, 3]]), cache.layers)
    cache.extend([1, 2, 3])
    assert cache.begin_prefix([1, 2, 3]) == []  # where `begin` leaves one to feed
    assert cache.layers[0].offset == 3
    assert cache.begin([1, 2, 3, 4]) == [4]


def test_a_config_tells_what_differs_from_the_defaults() -> None:
    assert CacheConfig().changes() == {}
    assert CacheConfig(max_size=1024, keep=4, bits=8).changes() == {"max_size": 1024, "bits": 8}


def test_a_detached_copy_of_a_full_cache_has_no_spare_capacity() -> None:
    cache = KVCache()
    cache.update_and_fetch(*rows(0, 300))
    copy = cache.copy()
    copy.detach()
    assert cache.keys.shape[2] == 512
    assert copy.keys.shape[2] == 300
    assert positions(copy) == list(range(300))


def test_a_roll_back_beyond_the_start_is_refused() -> None:
    cache = KVCache()
    cache.update_and_fetch(*rows(0, 2))
    roll_back([cache], 0)
    roll_back([cache], 1)
    assert cache.offset == 1
    with pytest.raises(CacheError, match="cannot roll back 2 tokens"):
        roll_back([cache], 2)


def test_a_prompts_room_is_reserved_at_once() -> None:
    """Chunk by chunk a cache would be copied each time it grows."""
    cache, grown = KVCache(), []
    cache.expect(3000)
    for _ in range(6):
        rows = mx.zeros((1, 2, 500, 32))
        cache.update_and_fetch(rows, rows)
        grown.append(cache.keys.shape[2])
    assert set(grown) == {capacity_for(3000)}
    unexpected = KVCache()
    for _ in range(6):
        unexpected.update_and_fetch(rows, rows)
    assert unexpected.keys.shape == cache.keys.shape  # planned alike
