"""Decoding outside an engine: a model, prompts, token ids."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from collections.abc import Sequence as Ids

from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.generation.forward import DecoderModel
from mlx_qwen3.generation.sampling import Sampler, TokenLogprobs
from mlx_qwen3.generation.scheduler import Scheduler
from mlx_qwen3.generation.sequence import Sequence
from mlx_qwen3.generation.speculative.drafters import Drafter


class SimpleSequence(Sequence):
    """A sequence whose tokens are kept in a list.

    Attributes:
        tokens: Those generated so far.
        error: What ended it, if it failed.
    """

    def __init__(
        self,
        prompt_ids: Ids[int],
        sampler: Sampler,
        cache: PromptCache,
        limit: int | None = None,
        drafter: Drafter | None = None,
    ):
        """limit: the most tokens to generate; None is no limit."""
        super().__init__(prompt_ids, sampler)
        self.tokens: list[int] = []
        self.error: Exception | None = None
        self.drafter = drafter
        self._first_cache, self._limit = cache, limit

    def open(self, ids: Ids[int]) -> None:  # noqa: ARG002  # the cache knows what it holds
        self.cache = self._first_cache

    def evicted(self) -> None:
        self._first_cache = self._first_cache.fork([-1])  # nothing in common: an empty one

    def take(self, token: int, logprobs: TokenLogprobs | None) -> None:  # noqa: ARG002  # none are asked for
        self.tokens.append(token)
        if len(self.tokens) == self._limit:
            self.finish()

    def close(self, error: Exception | None) -> None:
        self.error = error


def decode(
    model: DecoderModel,
    prompt_ids: Ids[int],
    cache: PromptCache,
    sampler: Sampler,
    drafter: Drafter | None = None,
) -> Generator[int]:
    """Prefill `prompt_ids`, then yield tokens without end; the caller stops, and closes this.

    Once closed, `cache` holds the prompt and what was generated, though perhaps not the last token. With a
    drafter several tokens are generated at a time, so that may be more than was yielded.
    """
    sequence = SimpleSequence(prompt_ids, sampler, cache, drafter=drafter)
    for tokens in decode_together(model, [sequence], size=1):
        for _, token in tokens:
            yield token


def decode_together(
    model: DecoderModel, sequences: Iterable[SimpleSequence], size: int
) -> Generator[list[tuple[SimpleSequence, int]]]:
    """Run `sequences`, at most `size` of them at once. Yields the tokens of each step.

    Raises what ends a sequence.
    """
    scheduler = Scheduler(model, size=size)
    sequences = list(sequences)
    given = dict.fromkeys(map(id, sequences), 0)
    for sequence in sequences:
        scheduler.add(sequence)
    try:
        while not scheduler.is_idle:
            scheduler.step()
            fresh = []
            for sequence in sequences:
                fresh += [(sequence, token) for token in sequence.tokens[given[id(sequence)] :]]
                given[id(sequence)] = len(sequence.tokens)
                if sequence.error is not None:
                    raise sequence.error
            if fresh:
                yield fresh
    finally:
        for sequence in sequences:
            sequence.finish()
        scheduler.settle()
