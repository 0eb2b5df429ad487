"""Speculative decoding: several tokens from one pass of the model, the same ones as without.

A pass reads all weights whether it looks at one token or at eight. So a drafter proposes the next
tokens, the model looks at all of them at once, and says for each place what it would have said there.
As far as both agree the draft is taken, and the model's own token after that comes for free
(https://arxiv.org/abs/2211.17192). Every token is the model's own choice, drawn with the noise of
its place (`sampling.py`), so nothing depends on what was drafted but the time it takes.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.prompt_cache import common_prefix
from mlx_qwen3.cache.window.undo import take_back
from mlx_qwen3.generation.decode import CLEAR_MEMORY_EVERY, Model
from mlx_qwen3.generation.sampling import NOTHING, Sampler
from mlx_qwen3.generation.speculative.drafters import Drafter


@dataclass(frozen=True)
class Pass:
    """A pass of the model under way: over a draft (k,), saying the tokens (k + 1,) of its places."""

    draft: mx.array
    tokens: mx.array


class Speculation:
    """Decoding with a drafter, for one turn. Counts its passes, the tokens drafted and those accepted."""

    def __init__(self, model: Model, cache: Sequence[Cache], sampler: Sampler, drafter: Drafter):
        self.passes = self.drafted = self.accepted = 0
        self._model, self._cache, self._sampler, self._drafter = model, cache, sampler, drafter
        self._ahead = 0  # tokens that the cache holds after the latest yielded
        self._clock = Clock()

    def decode(self, ids: Sequence[int]) -> Generator[int]:
        """Feed `ids` (one at least), then yield tokens without end; the caller stops, and closes this.

        The drafter knows the text before `ids`. Once closed, `cache` and drafter hold what was
        yielded and nothing after it.
        """
        longest = min(layer.keep_undo(self._drafter.pace.longest + 1) for layer in self._cache) - 1
        for token in ids:
            self._drafter.extend(token)
        self._clock.start()
        try:
            for token in self._passes(ids, longest):
                self._clock.stop()
                yield token
                self._clock.start()
        finally:
            take_back(self._cache, self._ahead)
            self._ahead = 0
            self._drafter.settle()
            for layer in self._cache:
                layer.keep_undo(0)

    def _passes(self, ids: Sequence[int], longest: int) -> Iterator[int]:
        under_way = self._start(mx.array(list(ids), mx.uint32), NOTHING)
        while True:
            if under_way.draft.size or (self._drafter.pace.length() and self._drafter.expects()):
                *accepted, last = self._finish(under_way)
                for token in accepted:
                    self._ahead -= 1
                    yield self._take(token)
                self._take(last)
                under_way = self._start(mx.array([last], mx.uint32), self._draft(longest))
                yield last
            else:
                # Nothing will be drafted: the next pass can start before this one's token is known.
                self._sampler.observe(under_way.tokens[0])
                following = self._start(under_way.tokens, NOTHING)
                token = int(under_way.tokens.item())  # type: ignore[arg-type]
                self._drafter.pace.learn(0, 0, self._clock.lap())
                self._drafter.extend(token)
                yield token
                under_way = following

    def _draft(self, longest: int) -> mx.array:
        length = min(self._drafter.pace.length(), longest)
        return self._drafter.draft(length, self._sampler) if length else NOTHING

    def _take(self, token: int) -> int:
        """`token` comes next."""
        self._sampler.observe(mx.array(token))
        self._drafter.extend(token)
        return token

    def _start(self, inputs: mx.array, draft: mx.array) -> Pass:
        """Have the model look at `inputs` and a draft of what comes after them."""
        self._ahead = 0  # should the model fail, nobody knows what the cache holds
        if draft.size == 0:
            tokens = self._sampler(self._model(inputs[None], self._cache)[0, -1]).reshape(1)
        else:
            logits = self._model(mx.concatenate([inputs, draft])[None], self._cache)[0, -1 - draft.size :]
            tokens = self._sampler.along(logits, draft)
        mx.async_eval(tokens)  # type: ignore[no-untyped-call]
        self._ahead = draft.size
        self.passes += 1
        if self.passes % CLEAR_MEMORY_EVERY == 0:
            mx.clear_cache()
        return Pass(draft, tokens)

    def _finish(self, under_way: Pass) -> list[int]:
        """The tokens that a pass gives; takes what it rejected from the cache."""
        draft: list[int] = under_way.draft.tolist()  # type: ignore[assignment]
        tokens: list[int] = under_way.tokens.tolist()  # type: ignore[assignment]
        accepted = common_prefix(draft, tokens)
        take_back(self._cache, len(draft) - accepted)
        self._ahead = accepted
        seconds = self._clock.lap()
        if draft:
            self._drafter.pace.learn(len(draft), accepted, seconds)
        self.drafted += len(draft)
        self.accepted += accepted
        return tokens[: accepted + 1]


class Clock:
    """Seconds spent, with pauses."""

    def __init__(self) -> None:
        self._spent = self._since = 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self) -> None:
        self._spent += time.perf_counter() - self._since

    def lap(self) -> float:
        """Seconds since the last lap, pauses left out."""
        self.stop()
        self.start()
        spent, self._spent = self._spent, 0.0
        return spent
