"""Sampling, compiled steps, and speculation: a token must be the one it is without them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.cache.prompt_cache import PromptCache
from mlx_qwen3.doctor.compare import allowed, as_numpy, distance, drawn_ids, fed
from mlx_qwen3.doctor.models import VOCABULARY, make_subject
from mlx_qwen3.generation.decode import decode
from mlx_qwen3.generation.filters import filter_logits, noise
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import NOTHING, Sampler, choose_rows, place_key
from mlx_qwen3.generation.speculative.draft_length import Pace
from mlx_qwen3.model.config import RopeScaling
from mlx_qwen3.model.prepare import compile_for_gpu

FULL_VOCABULARY = 151_936
DIVERGENCES = 0.1  # the share of texts that may differ on a GPU, where a draft's pass rounds otherwise


def check_sampler(quick: bool = False) -> Iterator[str]:
    """Candidates and drawn tokens beside numpy's; greedy; penalties; several rows beside one."""
    params = SamplingParams()
    random = np.random.default_rng(0)
    wrong = 0
    draws = 10 if quick else 60
    logits = 3 * random.standard_normal((draws, FULL_VOCABULARY), np.float32)
    for seed, row in enumerate(logits):
        ids, candidates = filter_logits(mx.array(row), params)
        assert ids is not None  # these parameters filter
        kept = set(np.array(ids)[np.isfinite(np.array(candidates))].tolist())
        expected, best = _candidates(row, params), list(_candidates(row, params))
        if kept != set(expected):
            yield f"the candidates of draw {seed} are not the likeliest tokens"
            return
        key = mx.array(place_key(seed, 0), mx.uint32)
        with mx.stream(mx.cpu):
            own = as_numpy(noise(mx.array(best, mx.uint32), key))
        token = best[int(np.argmax(row[best] / params.temperature + own))]
        sampler = Sampler(SamplingParams(seed=seed), FULL_VOCABULARY)
        wrong += _one(sampler, mx.array(row)) != token
    if wrong > (0 if is_cpu() else draws // 50):
        yield f"{wrong} of {draws} drawn tokens are not those that the noise decides for"
    yield from _other_choices(logits)


def _candidates(row: Any, params: SamplingParams) -> Sequence[int]:
    """The ids that top_k and top_p leave, likeliest first, by numpy."""
    best = np.argsort(-row, kind="stable")[: params.top_k]
    scaled = row[best] / params.temperature
    shares = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    before = np.cumsum(shares) - shares
    ids: list[int] = best[before < params.top_p].tolist()
    return ids


def _one(sampler: Sampler, logits: mx.array) -> int:
    return int(sampler(logits).item())  # type: ignore[arg-type]


def _other_choices(logits: Any) -> Iterator[str]:
    rows = mx.array(logits[:8])
    greedy = Sampler(SamplingParams(temperature=0), FULL_VOCABULARY)
    chosen = choose_rows([greedy] * len(rows), [NOTHING] * len(rows), rows).tolist()
    if chosen != np.argmax(logits[:8], axis=-1).tolist():
        yield "greedy tokens are not the likeliest ones"
    samplers = [Sampler(SamplingParams(seed=seed), FULL_VOCABULARY) for seed in range(len(rows))]
    together = choose_rows(samplers, [NOTHING] * len(rows), rows).tolist()
    alone = [_one(sampler, row) for sampler, row in zip(samplers, rows, strict=True)]
    if together != alone:
        yield "tokens drawn for several rows at once are not those drawn one by one"
    best = int(np.argmax(logits[0]))
    penal = Sampler(SamplingParams(temperature=0, frequency_penalty=2), FULL_VOCABULARY)
    for _ in range(20):
        penal.observe(best)
    if _one(penal, rows[0]) == best:
        yield "a token that was said 20 times is still the likeliest, whatever its penalty"


def check_compiled() -> Iterator[str]:
    """A compiled step with fused projections beside the same model as it is, before and after changes."""
    yield from _stays_in_use()
    if is_cpu() and shutil.which("c++") is None and shutil.which("g++") is None:
        return  # MLX compiles for the CPU with the system's compiler
    plain, fast = make_subject("0.6b", bits=4), make_subject("0.6b", bits=4)
    compile_for_gpu(fast.model)
    ids = drawn_ids(24, VOCABULARY, seed=7)
    sizes = (8, 1) if is_cpu() else (8, 1, 2, 4, 16)
    yield from _difference(plain.model, fast.model, ids, sizes, "a compiled step")
    for model in (plain.model, fast.model):
        model.model.norm.weight = model.model.norm.weight[::-1]
    yield from _difference(plain.model, fast.model, ids, sizes, "a compiled step of changed weights")
    for scaling in (RopeScaling(2.0, 64), None):
        for model in (plain.model, fast.model):
            model.scale_positions(scaling)
        yield from _difference(plain.model, fast.model, ids, sizes, "a compiled step of scaled positions")


def _stays_in_use() -> Iterator[str]:
    """A step that takes the model for changed is left without a word, and decoding is slow ever after."""
    model = make_subject("0.6b", bits=4).model  # prepared for this device
    had_one = model.has_step
    fed(model, drawn_ids(12, VOCABULARY, seed=8), (8, 1))
    if had_one and not model.has_step:
        yield "the fast step of decoding is not used after the first pass, though no weight was replaced"


def _difference(plain: Any, fast: Any, ids: list[int], sizes: Sequence[int], name: str) -> Iterator[str]:
    far = distance(fed(fast, ids, sizes), fed(plain, ids, sizes))
    if far > (allowed() / 10 if is_cpu() else allowed()):
        yield f"{name} is off by {far:.2g}"


class _Oracle:
    """Drafts the text it knows, with every third token wrong."""

    def __init__(self, text: Sequence[int]):
        self.pace: Any = _SteadyPace(longest=7)
        self._text, self._said = list(text), 0

    def begin(self, ids: Sequence[int]) -> Iterator[int]:
        del ids
        yield from ()

    def extend(self, token: int) -> None:
        del token
        self._said += 1

    def has_draft(self) -> bool:
        return True

    def draft(self, count: int, sampler: Sampler) -> mx.array:
        del sampler
        ids = self._text[self._said : self._said + count]
        draft = [(token + ((self._said + i) % 3 == 2)) % VOCABULARY for i, token in enumerate(ids)]
        return mx.array(draft, mx.uint32) if draft else NOTHING

    def discard(self) -> None:
        """Nothing was kept."""


class _SteadyPace(Pace):
    """Always the same length."""

    def length(self) -> int:
        return self.longest


def check_speculation(quick: bool = False) -> Iterator[str]:
    """Greedy texts with a drafter that is right and wrong in turn, beside texts without."""
    subject = make_subject("0.6b")
    count, greedy = 16 if quick else 100, SamplingParams(temperature=0)
    wrong = 0
    texts = 2 if quick else 4
    for number in range(texts):
        prompt = drawn_ids(20, VOCABULARY, seed=number)
        written: list[list[int]] = []
        for drafter in (None, True):
            cache = PromptCache(subject.model)
            sampler = Sampler(greedy, VOCABULARY)
            tokens = decode(subject.model, prompt, cache, sampler, _Oracle(written[0]) if drafter else None)
            written.append([token for _, token in zip(range(count), tokens, strict=False)])
            tokens.close()
        wrong += written[0] != written[1]
    if wrong > (0 if is_cpu() else max(1, DIVERGENCES * texts)):
        yield f"{wrong} of {texts} texts differ with speculation"
