"""Fused projections and the compiled step: the same numbers, names and memory, and never out of date."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from parity.model_cases import DENSE, MOE, Raw, yarn

from mlx_qwen3 import make_prompt_cache
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.fused_projections import FusedProjections
from mlx_qwen3.model.prepare import compile_for_gpu
from mlx_qwen3.model.qwen3 import Model

SHAPES = {
    "dense": DENSE,
    "moe": {**MOE, "moe_intermediate_size": 64, "mlp_only_layers": [1]},
    "yarn": {**DENSE, **yarn(2), "tie_word_embeddings": True},
}
FORMATS = {"fp32": None, "4-bit": (4, 32, "affine"), "mxfp4": (4, 32, "mxfp4")}
PROMPT = [(7 * i) % 96 for i in range(20)]


def build(raw: Raw, storage: str = "fp32") -> Model:
    mx.random.seed(1)
    model = Model(ModelConfig.from_dict(raw))
    if settings := FORMATS[storage]:
        bits, group_size, mode = settings
        nn.quantize(model, group_size, bits, mode=mode)
    mx.eval(model.parameters())
    return model


def fused_modules(model: Model) -> list[FusedProjections]:
    return [
        module
        for module in model.modules()
        if isinstance(module, FusedProjections) and module._fused_matrices
    ]


def greedy(model: Model, count: int = 24, **cache_options: int) -> tuple[list[int], mx.array]:
    """The likeliest tokens, fed one at a time, and the logits of the last."""
    cache = make_prompt_cache(model, **cache_options)
    tokens, logits = [], model(mx.array([PROMPT]), cache)[:, -1]
    for _ in range(count):
        tokens.append(int(mx.argmax(logits).item()))
        logits = model(mx.array([tokens[-1:]]), cache)[:, -1]
    return tokens, logits


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_tokens_are_the_same_fused_and_compiled(shape: str, storage: str) -> None:
    model = build(SHAPES[shape], storage)
    tokens, logits = greedy(model)
    for module in model.modules():
        if isinstance(module, FusedProjections):
            module.fuse()
    assert len(fused_modules(model)) == 2 * len(model.layers)
    fused_tokens, fused_logits = greedy(model)
    assert fused_tokens == tokens
    assert mx.abs(fused_logits - logits).max().item() < 1e-4
    compile_for_gpu(model)
    compiled_tokens, compiled_logits = greedy(model)
    assert model._step is not None, "the step was discarded"
    assert compiled_tokens == tokens
    assert mx.abs(compiled_logits - logits).max().item() < 1e-4
    assert len(fused_modules(model)) == 2 * len(model.layers)


@pytest.mark.parametrize(
    "options",
    [{"max_size": 24}, {"bits": 8, "group_size": 32}, {"max_size": 16, "bits": 4, "group_size": 32}],
)
def test_every_cache_gives_the_same_tokens_compiled(options: dict[str, int]) -> None:
    plain, compiled = build(SHAPES["dense"]), build(SHAPES["dense"])
    compile_for_gpu(compiled)
    assert greedy(compiled, **options)[0] == greedy(plain, **options)[0]


def test_several_tokens_and_rows_at_once() -> None:
    plain, compiled = build(SHAPES["moe"], "4-bit"), build(SHAPES["moe"], "4-bit")
    compile_for_gpu(compiled)
    caches = make_prompt_cache(plain), make_prompt_cache(compiled)
    for ids in (mx.array([PROMPT, PROMPT[::-1]]), mx.array([[1, 2, 3, 4]] * 2), mx.array([[9, 8, 7]] * 2)):
        a, b = (model(ids, cache) for model, cache in zip((plain, compiled), caches, strict=True))
        assert mx.abs(a - b).max().item() < 1e-4
    assert compiled._step is not None


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("shape", ["dense", "moe"])
def test_names_values_and_memory_stay(shape: str, storage: str, tmp_path: Path) -> None:
    model, before = (
        build(SHAPES[shape], storage),
        dict(tree_flatten(build(SHAPES[shape], storage).parameters())),
    )
    frozen = [name for name, _ in tree_flatten(model.trainable_parameters())]
    compile_for_gpu(model)
    after = dict(tree_flatten(model.parameters()))
    assert list(after) == list(before)
    assert [name for name, _ in tree_flatten(model.trainable_parameters())] == frozen
    model.save_weights(str(tmp_path / "saved.safetensors"))
    saved = mx.load(str(tmp_path / "saved.safetensors"))
    for name, value in before.items():
        assert mx.array_equal(after[name], value), name
        assert mx.array_equal(saved[name], value), name


@pytest.mark.parametrize("shape", ["dense", "moe"])
def test_memory_is_neither_doubled_nor_kept(shape: str) -> None:
    gc.collect()
    free = mx.get_active_memory()
    model = build({**SHAPES[shape], "hidden_size": 512}, "4-bit")
    model_bytes = mx.get_active_memory() - free
    compile_for_gpu(model)
    assert mx.get_active_memory() - free <= 1.02 * model_bytes
    tokens, logits = greedy(model, 2)
    gc.disable()
    del model, tokens, logits
    left = mx.get_active_memory() - free
    gc.enable()
    assert left <= 0.02 * model_bytes


def change_nothing(model: Model) -> None:
    pass


def load_others(model: Model) -> None:
    model.load_weights([(name, value * 2) for name, value in tree_flatten(model.parameters())])


def assign_one(model: Model) -> None:
    model.layers[1].self_attn.k_proj.weight = model.layers[1].self_attn.k_proj.weight * 3


def replace_a_module(model: Model) -> None:
    projection = nn.Linear(64, model.layers[0].self_attn.q_proj.weight.shape[0], bias=True)
    mx.eval(projection.parameters())
    model.layers[0].self_attn.q_proj = projection


def add_a_bias(model: Model) -> None:
    model.layers[2].self_attn.v_proj.bias = mx.ones((64,))


def replace_a_layer(model: Model) -> None:
    model.model.layers[1] = build(SHAPES["dense"]).layers[0]


def quantize(model: Model) -> None:
    nn.quantize(model, 32, 8)


@pytest.mark.parametrize(
    "change",
    [change_nothing, load_others, assign_one, replace_a_module, add_a_bias, replace_a_layer, quantize],
)
def test_a_changed_model_is_run_as_it_is(change: Callable[[Model], None]) -> None:
    mx.random.seed(2)
    plain, compiled = build(SHAPES["dense"]), build(SHAPES["dense"])
    compile_for_gpu(compiled)
    greedy(compiled, 2)
    for model in (plain, compiled):
        mx.random.seed(3)
        change(model)
    (tokens, expected), (others, logits) = greedy(plain), greedy(compiled)
    assert tokens == others
    assert mx.abs(logits - expected).max().item() < 1e-4
    assert (compiled._step is None) == (change is not change_nothing)


def test_experts_that_are_no_longer_fused_are_contiguous_again() -> None:
    model = build(SHAPES["moe"], "4-bit")
    compile_for_gpu(model)
    experts = model.layers[0].mlp.switch_mlp
    up = experts.up_proj.weight
    experts.gate_proj.scales = experts.gate_proj.scales * 2
    greedy(model, 2)
    assert experts._fused_matrices is None
    assert experts.up_proj.weight is not up
    assert mx.array_equal(experts.up_proj.weight, up)


def bits_of(path: str) -> dict[str, int]:
    return {"group_size": 32, "bits": 8 if "v_proj" in path else 4}


def test_projections_of_another_format_stay_alone() -> None:
    """Recipes give v_proj and down_proj more bits than their neighbours."""
    model, plain = build(SHAPES["dense"]), build(SHAPES["dense"])
    for each in (model, plain):
        nn.quantize(each, 32, class_predicate=lambda path, _: path.endswith("_proj") and bits_of(path))
    compile_for_gpu(model)
    attention = model.layers[0].self_attn
    assert [len(ends) for _, ends in attention._fused_matrices._joined] == [1, 0]
    assert greedy(model)[0] == greedy(plain)[0]


def test_gradients_are_those_of_the_separate_matrices() -> None:
    plain, fused = build(SHAPES["dense"]), build(SHAPES["dense"])
    compile_for_gpu(fused)
    ids = mx.array([PROMPT])
    gradients = [
        nn.value_and_grad(model, lambda m: m(ids).square().mean())(model)[1] for model in (plain, fused)
    ]
    a, b = (dict(tree_flatten(gradient)) for gradient in gradients)
    assert list(a) == list(b)
    for name, value in a.items():
        assert mx.allclose(b[name], value, atol=1e-5), name


def test_a_step_compiled_on_one_thread_runs_on_another() -> None:
    model = build(SHAPES["dense"])
    compile_for_gpu(model)
    expected, results = greedy(model, 4)[0], []

    def run() -> None:
        results.append(greedy(model, 4)[0])
        mx.clear_streams()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results == [expected]
