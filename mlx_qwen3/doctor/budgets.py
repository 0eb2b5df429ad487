"""Budgets of time and memory: each is missed where a slow path of a device is taken.

The limits hold on GPUs. On a CPU the figures are measured and shown alone, except memory that grows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_qwen3.backend.device import is_cpu
from mlx_qwen3.bench.roofline import measure_bandwidth
from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.cache.random_rows import fill
from mlx_qwen3.checkpoint.memory import CPU_CHUNK, GPU_CHUNK, estimate_memory
from mlx_qwen3.doctor.compare import drawn_ids
from mlx_qwen3.doctor.models import VOCABULARY, make_subject
from mlx_qwen3.doctor.steps import milliseconds_a_token
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler
from mlx_qwen3.model.prepare import prepare

ROWS, STEPS = 4000, 24
QUANTIZED_SLOWER, CACHE_SHARE = 1.5, 0.05
MOST_CHUNK_SECONDS = 0.6
# A step that copies a layer's buffer takes as much beside what it holds.
COPIED_SHARE = 0.5
# Of a conversation whose peak is held against the memory plan, and by how much it may be above.
PLANNED_ROWS, ABOVE_PLAN = 8192, 1.1
# The largest matrix of a 14B, (outputs, inputs), and the share of bandwidth that reading it must reach.
LARGE_MATRIX, LEAST_SHARE = (17408, 5120), 0.4


class Budgets:
    """Measures, and keeps the figures. heads: whose ratio the model has."""

    def __init__(self, heads: str = "4b"):
        self.figures: dict[str, float] = {}
        self._subject = make_subject(heads, bits=4)
        args = self._subject.model.args
        itemsize = self._subject.model.model.norm.weight.dtype.size
        self._room = 2 * ROWS * args.num_key_value_heads * args.head_dim * itemsize

    def check(self) -> Iterator[str]:
        """All budgets, one after another."""
        yield from self._freed_after_loading()
        yield from self._first_token()
        yield from self._steps()
        yield from self._peak()
        yield from self._reading()
        yield from self._batch()

    def _freed_after_loading(self) -> Iterator[str]:
        mx.clear_cache()
        make_subject("4b", bits=4)
        weights = max(1, sum(value.nbytes for value in self._subject.weights.values()))
        kept = mx.get_cache_memory() / weights
        self.figures["kept after loading"] = kept
        if not is_cpu() and kept > CACHE_SHARE and mx.get_cache_memory() > 2**26:
            yield f"MLX keeps {kept:.0%} of the weights' size for later after loading"

    def _first_token(self) -> Iterator[str]:
        model = self._subject.model

        def first() -> None:
            cache = make_prompt_cache(model)
            logits = model(mx.array([[1]], mx.uint32), cache)[0, -1]
            mx.eval(Sampler(SamplingParams(seed=1), VOCABULARY)(logits))

        self.figures["first token ms"] = 1e3 * _seconds(first)
        self.figures["second token ms"] = 1e3 * _seconds(first)
        yield from ()

    def _steps(self) -> Iterator[str]:
        plain = self._decode(None)
        quantized = self._decode(8)
        self.figures["ms at 4k rows"], self.figures["8 bits ms"] = plain, quantized
        if not is_cpu() and quantized > QUANTIZED_SLOWER * plain:
            yield f"a token over {ROWS} rows of 8 bits takes {quantized:.2g} ms, over plain ones {plain:.2g}"
        beyond = self.figures["beyond cache"]
        if beyond > COPIED_SHARE:
            yield f"a token takes {beyond:.0%} of a layer's cache beside it: the cache is copied"
        if not is_cpu() and self.figures["chunk s"] > MOST_CHUNK_SECONDS:
            yield f"a chunk of a prompt takes {self.figures['chunk s']:.2g} s"

    def _decode(self, bits: int | None) -> float:
        """Milliseconds of a token over ROWS rows, run ahead by one."""
        model = self._subject.model
        cache: list[Any] = list(make_prompt_cache(model, bits=bits))
        ids = drawn_ids(256, VOCABULARY)
        self.figures["chunk s"] = _seconds(lambda: mx.eval(model(mx.array([ids], mx.uint32), cache)))
        fill(model, cache, ROWS)
        milliseconds = milliseconds_a_token(model, cache, STEPS)
        if bits is None:
            # What is beside the cache: the scores and activations of a token are small, a copy is not.
            self.figures["beyond cache"] = _beyond(model, cache) / self._room
        return milliseconds

    def _peak(self) -> Iterator[str]:
        """The peak of a long prompt's last chunk and of the cache's growth, beside the plan's."""
        model, chunk = self._subject.model, CPU_CHUNK if is_cpu() else GPU_CHUNK
        itemsize = model.model.norm.weight.dtype.size
        for bits in (None, 8):
            cache: list[Any] = list(make_prompt_cache(model, bits=bits))
            mx.clear_cache()
            before = mx.get_active_memory()
            fill(model, cache, PLANNED_ROWS - chunk)
            mx.reset_peak_memory()
            for ids in (drawn_ids(chunk, VOCABULARY), [1]):  # the second outgrows the cache
                mx.eval(model(mx.array([ids], mx.uint32), cache)[0, -1])
            plan = estimate_memory(
                model.args, 0, PLANNED_ROWS + 1, CacheConfig(bits=bits), itemsize, chunk=chunk
            )
            share = (mx.get_peak_memory() - before) / plan.total
            self.figures[f"{'8-bit' if bits else 'plain'} peak of plan"] = share
            if share > ABOVE_PLAN:
                kind = f"of {bits} bits" if bits else "plain"
                yield (
                    f"{PLANNED_ROWS:,} tokens of {kind} cache take {share:.0%} of the memory planned for them"
                )

    def _reading(self) -> Iterator[str]:
        """Decoding reads weights: the bytes of a large matrix a second, as a share of the bandwidth."""
        outputs, inputs = LARGE_MATRIX
        layer = nn.QuantizedLinear(64, 64, bias=False, group_size=64, bits=4)
        layer.weight = mx.random.randint(0, 2**31 - 1, (outputs, inputs // 8)).astype(mx.uint32)
        dtype = self._subject.model.model.norm.weight.dtype
        layer.scales = layer.biases = mx.full((outputs, inputs // 64), 0.01, dtype)
        prepare(layer)
        row = mx.ones((1, 1, inputs), dtype)
        mx.eval(layer(row))
        seconds = min(_seconds(lambda: mx.eval([layer(row) for _ in range(4)])) for _ in range(5)) / 4
        size = sum(layer[name].nbytes for name in ("weight", "scales", "biases"))
        share = size / seconds / measure_bandwidth()
        self.figures["share of bandwidth"] = share
        if not is_cpu() and share < LEAST_SHARE:
            yield f"a matrix of 4 bits is read with {share:.0%} of the memory's bandwidth"

    def _batch(self) -> Iterator[str]:
        """Time of 16 sequences by the scheduler, beside the same passes without it."""
        from mlx_qwen3.cache.prompt_cache import PromptCache
        from mlx_qwen3.generation.decode import SimpleSequence, decode_together

        model, count, steps = self._subject.model, 16, 12
        greedy = SamplingParams(temperature=0)
        sequences = [
            SimpleSequence(drawn_ids(20, VOCABULARY, seed=n), Sampler(greedy, VOCABULARY), PromptCache(model),
                           limit=steps) for n in range(count)
        ]  # fmt: skip
        stamps = [time.perf_counter() for _ in decode_together(model, sequences, size=count)]
        gaps = [after - before for before, after in pairwise(stamps)]
        self.figures["batch of 16 ms"] = 1e3 * median(gaps)
        yield from ()


def _beyond(model: Any, cache: list[Any]) -> int:
    """Bytes that a token takes at most beside what is held before it."""
    token = mx.array([1], mx.uint32)
    mx.eval(token, [layer.state for layer in cache])
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    mx.eval(model(token[None], cache))
    return mx.get_peak_memory() - held


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
