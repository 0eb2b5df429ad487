"""Decoding many texts at once: ids in, ids out, as `decode` does it for one.

A step reads all weights of the model, for one text or for many: that is what a batch gains from.
Texts join as soon as there is room and leave as soon as they end (continuous batching, Yu et al.,
OSDI 2022). Prompts are read several at a time, and what they have in common only once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar, cast

import mlx.core as mx

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.batch import BatchKVCache
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.prompt_cache import MakesCache, PromptCache, common_prefix
from mlx_qwen3.cache.rows import each
from mlx_qwen3.generation.decode import CLEAR_MEMORY_EVERY, ChunkSizes, prefill
from mlx_qwen3.generation.sampling import Sampler, choose_each

# Prompts are read together while all of their tokens, padding included, are no more than this: a
# longer one keeps a device busy alone.
TOGETHER_TOKENS = 2048
# By how many tokens a text must be able to grow to be let in.
MARGIN = 256


class BatchModel(MakesCache, Protocol):
    """What is asked of a model: logits (B, L, V) of ids (B, L), and an empty cache."""

    def __call__(self, inputs: mx.array, cache: Sequence[Cache]) -> mx.array: ...


class Row:
    """One text of a batch. What is put into `feed` is fed in place of the token chosen last."""

    def __init__(self, prompt: Sequence[int], sampler: Sampler):
        """prompt: one id at least."""
        self.ids = list(prompt[:-1])
        """The ids that the cache holds, or will as the row joins."""
        self.feed = deque(prompt[-1:])
        self.is_done = False
        """Set it to have the row leave before the next step."""
        self.sampler = sampler
        self.chosen: mx.array | None = None
        """The token that comes next, once a step is under way."""

    def next_input(self) -> tuple[mx.array, bool]:
        """The id to feed, a scalar array, and whether it was chosen."""
        if self.feed:
            return mx.array(self.feed.popleft()), False
        assert self.chosen is not None
        self.sampler.observe(self.chosen)
        return self.chosen, True


AnyRow = TypeVar("AnyRow", bound=Row)


class BatchDecoder(Generic[AnyRow]):
    """Writes `rows` until each is done; they are let in as they come, so the longest had best come first.

    size: rows written at once. room: tokens that the cache may hold of all rows, padding included.
    bits, group_size: stores keys and values quantized, see `make_prompt_cache`.
    """

    def __init__(
        self,
        model: BatchModel,
        rows: Iterable[AnyRow],
        size: int,
        room: int,
        bits: int | None = None,
        group_size: int = 64,
    ):
        self._model, self._size, self._room = model, size, room
        self._prefix = PromptCache(model, CacheConfig(bits=bits, group_size=group_size))
        self._layers = [BatchKVCache(bits, group_size) for _ in self._prefix.layers]
        self._chunks = ChunkSizes()
        self._rows: list[AnyRow] = []
        self._coming = iter(rows)
        self._waiting: deque[AnyRow] = deque()

    def run(self) -> Iterator[list[tuple[AnyRow, int]]]:
        """Yield each row's next token after every step, and nothing after a chunk of prompts.

        As in `decode`, the step that follows is under way when tokens are yielded. In between, rows
        may be fed, and be done.
        """
        steps = 0
        while True:
            self._keep([row for row in self._rows if not row.is_done])
            self._waiting.extend(islice(self._coming, max(0, self._size - len(self._waiting))))
            if group := self._next_group():
                yield from self._read(group)
            elif self._rows:
                self._make_way()
                yield self._step()
                if (steps := steps + 1) % CLEAR_MEMORY_EVERY == 0:
                    mx.clear_cache()
            else:
                return

    def _step(self) -> list[tuple[AnyRow, int]]:
        inputs = [row.next_input() for row in self._rows]
        tokens = mx.stack([token for token, _ in inputs])
        logits = self._model(tokens[:, None], self._layers)[:, -1]
        self._choose(logits)
        said, values = [], cast(list[int], tokens.tolist())
        for row, token, (_, is_chosen) in zip(self._rows, values, inputs, strict=True):
            row.ids.append(token)
            if is_chosen:
                said.append((row, token))
        return said

    def _choose(self, logits: mx.array) -> None:
        """Start choosing, by logits (B, V), the next token of each row that it is not known of."""
        numbers = [number for number, row in enumerate(self._rows) if not row.feed]
        if not numbers:
            mx.async_eval(logits)  # type: ignore[no-untyped-call]
            return
        rows = [self._rows[number] for number in numbers]
        own = logits if len(rows) == len(self._rows) else logits[mx.array(numbers)]
        chosen = choose_each([row.sampler for row in rows], own)
        mx.async_eval(chosen)  # type: ignore[no-untyped-call]
        for row, token in zip(rows, chosen, strict=True):
            row.chosen = token

    # Who is in

    def _next_group(self) -> list[AnyRow]:
        """The waiting rows to read next, together."""
        group: list[AnyRow] = []
        common: list[int] = []
        for row in self._waiting:
            shared = row.ids if not group else common[: common_prefix(common, row.ids)]
            new = [len(member.ids) - len(shared) for member in [*group, row]]
            if not self._fits([*group, row]) or (group and max(new) * len(new) > TOGETHER_TOKENS):
                break
            group, common = [*group, row], shared
        return group

    def _fits(self, group: Sequence[AnyRow]) -> bool:
        """Whether `group` may join: there are places for all, and room to read it and to grow."""
        rows = [*self._rows, *group]
        longest = max(len(row.ids) for row in rows)
        # While it is read, the group is there twice, and what it shares once more.
        enough = (len(rows) + len(group) + 1) * (longest + MARGIN) <= self._room
        return len(rows) <= self._size and (enough or len(rows) == 1)

    def _make_way(self) -> None:
        """Have the shortest rows wait where there is no room to grow; later they are read again."""
        while len(self._rows) > 1 and len(self._rows) * (self._layers[0].tokens + 1) > self._room:
            shortest = min(self._rows, key=lambda row: len(row.ids))
            self._keep([row for row in self._rows if row is not shortest])
            self._waiting.appendleft(shortest)

    def _keep(self, rows: list[AnyRow]) -> None:
        """Let the others go; the last rows take their places."""
        kept = {id(row) for row in rows}
        numbers = [number for number, row in enumerate(self._rows) if id(row) in kept]
        if len(numbers) == len(self._rows):
            return
        behind = iter(number for number in numbers if number >= len(numbers))
        order = [place if place in numbers else next(behind) for place in range(len(numbers))]
        for layer in self._layers:
            layer.filter(order)
        self._rows = [self._rows[number] for number in order]

    # Reading prompts

    def _read(self, group: list[AnyRow]) -> Iterator[list[tuple[AnyRow, int]]]:
        """Read the prompts of `group`, what they share once, and have them join."""
        shared = group[0].ids
        for row in group:
            shared = shared[: common_prefix(shared, row.ids)]
        for _ in self._read_shared(shared):
            yield []
        # Where there is nothing to read, any id: the first step writes over it.
        rest = [row.ids[len(shared) :] or ([] if shared else [0]) for row in group]
        layers = [_repeated(layer, len(group)) for layer in self._prefix.layers]
        for _ in self._read_padded(rest, layers):
            yield []
        for layer, read in zip(self._layers, layers, strict=True):
            layer.extend(read, [len(row.ids) for row in group])
        mx.eval([layer.state for layer in self._layers])
        self._waiting = deque(row for row in self._waiting if row not in group)
        self._rows += group

    def _read_shared(self, ids: list[int]) -> Iterator[None]:
        feed, done = self._prefix.begin([*ids, -1])[:-1], 0
        for processed in prefill(self._model, feed, self._prefix.layers):
            self._prefix.extend(feed[done:processed])
            done = processed
            yield

    def _read_padded(self, texts: list[list[int]], layers: list[KVCache]) -> Iterator[None]:
        """Feed texts of different lengths, padded at the end: what comes last, nobody looks back at."""
        longest, done = max(map(len, texts)), 0
        padded = mx.array([text + [0] * (longest - len(text)) for text in texts])
        while done < longest:
            width = max(1, self._chunks.size // len(texts))
            start = time.perf_counter()
            self._model(padded[:, done : done + width], layers)
            mx.eval([layer.state for layer in layers])
            mx.clear_cache()
            if done + width <= longest:
                self._chunks.learn(time.perf_counter() - start)
            done += width
            yield


def _repeated(layer: Cache, count: int) -> KVCache:
    """`count` rows that begin as the one of `layer`, all in its memory until they are written to."""
    assert isinstance(layer, KVCache)
    keys, values, *rest = layer.state
    if keys is not None:
        keys, values = (
            each(lambda array: mx.broadcast_to(array, (count, *array.shape[1:])), rows)
            for rows in (keys, values)
        )
    return type(layer).from_state((keys, values, *rest))
