"""The doctor finds nothing on a sound machine, and notices each of the faults planted here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np
import pytest

from mlx_qwen3.cache import buffers, kv
from mlx_qwen3.cache.batch import SequenceCaches
from mlx_qwen3.cache.rows import QuantizedRows
from mlx_qwen3.conversion.quantize import search
from mlx_qwen3.doctor import Finding, Report, diagnose, engines, machine, models, storage
from mlx_qwen3.errors import BenchmarkError
from mlx_qwen3.generation import filters
from mlx_qwen3.generation.speculative.speculation import Speculation
from mlx_qwen3.model import attention
from mlx_qwen3.model.compiled_step import CompiledStep
from mlx_qwen3.model.mlp import SparseMoeBlock
from mlx_qwen3.model.qwen3 import Model
from mlx_qwen3.model.rope import RoPE

Patch = pytest.MonkeyPatch


def changed(patch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Replace `owner.name` by a function that is given the original first."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *arguments, **options: change(original, *arguments, **options))


def wrong_mask(patch: Patch) -> None:
    patch.setattr(kv.KVCache, "make_mask", lambda *_, **__: None)


def swapped_heads(patch: Patch) -> None:
    def swap(attend: Any, *arguments: Any) -> mx.array:
        output = attend(*arguments)
        return mx.concatenate([output[:, 1:2], output[:, :1], output[:, 2:]], axis=1)

    changed(patch, attention, "attend", swap)


def scales_one_group_off(patch: Patch) -> None:
    def shift(
        product: Any, x: mx.array, packed: mx.array, scales: mx.array, *rest: Any, **options: Any
    ) -> Any:
        return product(x, packed, mx.roll(scales, 1, axis=-1), *rest, **options)

    changed(patch, mx, "quantized_matmul", shift)


def cache_scales_one_group_off(patch: Patch) -> None:
    def shift(quantize: Any, *arguments: Any) -> QuantizedRows:
        packed, scales, biases = quantize(*arguments)
        return QuantizedRows(packed, mx.roll(scales, 1, axis=-1), biases)

    changed(patch, buffers, "quantize", shift)


def row_written_late(patch: Patch) -> None:
    def late(write: Any, buffer: Any, rows: Any, start: int) -> None:
        write(buffer, rows, min(start + 1, buffer.capacity - 1))

    changed(patch, buffers.Buffer, "write", late)


def stale_compiled_step(patch: Patch) -> None:
    patch.setattr(CompiledStep, "is_of", lambda step, model: True)


def step_left_unsaid(patch: Patch) -> None:
    def replacing_a_weight(call: Any, model: Model, *arguments: Any) -> mx.array:
        logits = call(model, *arguments)
        model.model.norm.weight = mx.array(model.model.norm.weight)
        return logits

    changed(patch, Model, "__call__", replacing_a_weight)


def top_p_ignored(patch: Patch) -> None:
    patch.setattr(filters, "top_p", lambda logits, threshold: logits)


def noise_of_another_place(patch: Patch) -> None:
    changed(patch, filters, "noise", lambda noise, ids, key: noise(ids, key + 1))


def caches_of_others(patch: Patch) -> None:
    def swap(split: Any, caches: SequenceCaches, *arrays: mx.array) -> Any:
        parts = list(split(caches, *arrays))
        others = [parts[-1][0], *(cache for cache, _ in parts[:-1])]
        return [(cache, rows) for cache, (_, rows) in zip(others, parts, strict=True)]

    changed(patch, SequenceCaches, "split", swap)


def one_too_many_accepted(patch: Patch) -> None:
    def generous(verify: Any, speculation: Any, sequence: Any, draft: mx.array, tokens: list[int]) -> int:
        accepted = verify(speculation, sequence, draft, tokens)
        return min(accepted + 1, len(tokens) - 1)

    changed(patch, Speculation, "verify", generous)


def saved_cache_one_short(patch: Patch) -> None:
    def shorten(load: Any, path: Path) -> Any:
        cache, metadata = load(path)
        for layer in cache:
            layer.trim(1)
        return cache, metadata

    changed(patch, storage, "load_prompt_cache", shorten)


def rounding_down(patch: Patch) -> None:
    def down(nearest: Any, groups: mx.array, grid: Any, bits: int) -> mx.array:
        scale, _ = grid
        return nearest(groups - scale * 0.45, grid, bits)

    changed(patch, search, "nearest", down)


def rotation_that_does_not_move(patch: Patch) -> None:
    patch.setattr(RoPE, "shift", lambda rope, x, by: x)


def experts_of_the_least_weight(patch: Patch) -> None:
    def worst(route: Any, block: Any, tokens: mx.array) -> Any:
        experts, weights = route(block, tokens)
        return (experts + 1) % 8, weights

    changed(patch, SparseMoeBlock, "route", worst)


def numbers_that_are_none(patch: Patch) -> None:
    changed(patch, Model, "__call__", lambda call, *arguments: call(*arguments) + mx.array(float("nan")))


def thread_without_a_stream(patch: Patch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("There is no Stream(gpu, 0) in current thread.")

    patch.setattr(engines, "Engine", fail)


# The fault, the check that has to notice it, and whether it is in MLX's path, which a Linux CPU leaves.
FAULTS: list[tuple[Callable[[Patch], None], str, bool]] = [
    (wrong_mask, "logits", True),
    (swapped_heads, "logits", True),
    (scales_one_group_off, "quantized products", False),
    (cache_scales_one_group_off, "caches", True),
    (row_written_late, "logits", True),
    (stale_compiled_step, "compiled step", False),
    (step_left_unsaid, "compiled step", False),
    (top_p_ignored, "sampler", False),
    (noise_of_another_place, "sampler", False),
    (caches_of_others, "batches", True),
    (one_too_many_accepted, "speculation", False),
    (saved_cache_one_short, "saved caches", False),
    (rounding_down, "conversion", False),
    (rotation_that_does_not_move, "positions", False),
    (experts_of_the_least_weight, "logits", True),
    (numbers_that_are_none, "logits", False),
    (thread_without_a_stream, "threads", False),
]


@pytest.mark.parametrize(
    ("plant", "check", "is_in_mlx"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS]
)
def test_a_planted_fault_is_noticed(
    plant: Callable[[Patch], None], check: str, is_in_mlx: bool, monkeypatch: Patch
) -> None:
    if is_in_mlx:
        monkeypatch.setenv("MLX_QWEN3_PLAIN", "1")
    plant(monkeypatch)
    report = diagnose(quick=True, only=[check])
    assert not report.is_well
    assert report.problems[0].startswith(f"{check}: ")
    assert "\n" not in report.problems[0]


@pytest.mark.parametrize("check", ["saved caches", "conversion", "positions", "compiled step", "speculation"])
def test_a_sound_machine_is_well(check: str) -> None:
    report = diagnose(quick=True, only=[check])
    assert report.problems == []


def test_the_quick_checks_find_nothing_here_and_make_a_block_to_paste() -> None:
    names: list[str] = []
    report = diagnose(quick=True, on_check=names.append)
    assert report.is_well, report.block()
    assert names == ["machine", "logits", "caches", "quantized products", "sampler", "batches"]
    block = report.block()
    assert f"mlx {machine.installed_version('mlx')}" in block
    assert all(any(line.startswith(name) and " ok " in line for line in block.splitlines()) for name in names)
    assert json.loads(report.to_json())["findings"][0]["problems"] == []


def test_an_old_mlx_is_named(monkeypatch: Patch) -> None:
    monkeypatch.setattr(machine, "installed_version", lambda package: "0.32.0")
    (problem,) = diagnose(only=["machine"]).problems
    assert problem == "machine: MLX 0.32.0 has faults that 0.32.4 mends; run pip install -U 'mlx>=0.32.4'"


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="there is no check 'weather'; there are machine, logits"):
        diagnose(only=["weather"])


def test_figures_are_in_the_block() -> None:
    report = Report({"device": "x"}, (Finding("budgets", ("too slow",), {"ms": 12.345}),))
    assert "ms 12.3" in report.block()
    assert report.block().endswith("problem: budgets: too slow")


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_the_references_unpacking_is_mlxs(bits: int) -> None:
    matrix = mx.random.normal((8, 128))
    stored = mx.quantize(matrix, group_size=64, bits=bits)
    plain = np.array(mx.dequantize(*stored, group_size=64, bits=bits))
    assert np.allclose(models.unpacked(stored[0], bits, stored[1], stored[2]), plain, atol=1e-6)
