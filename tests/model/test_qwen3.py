"""The architecture: names of a checkpoint, masks, and the choice of experts."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from parity.model_cases import DENSE, MOE, Raw, shapes, weights, yarn

from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.model import attention_kernels
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.mlp import SparseMoeBlock, SwitchMLP
from mlx_qwen3.model.qwen3 import Model, stack_experts
from mlx_qwen3.model.rope import YarnRoPE, make_rope, yarn_attention_factor, yarn_wavelengths


def test_parameter_names_are_the_published_ones(tiny_model: Model, tiny_raw: Raw) -> None:
    published = {name: mx.zeros(shape) for name, shape in shapes(tiny_raw).items()}
    expected = {name: value.shape for name, value in tiny_model.sanitize(published).items()}
    assert {name: value.shape for name, value in tree_flatten(tiny_model.parameters())} == expected


def test_a_tied_output_head_in_the_file_is_dropped() -> None:
    model = Model(ModelConfig.from_dict({**DENSE, "tie_word_embeddings": True}))
    kept = model.sanitize({"lm_head.weight": mx.zeros(1), "lm_head.scales": mx.zeros(1), "x": mx.zeros(1)})
    assert list(kept) == ["x"]


def test_experts_are_stacked_in_order() -> None:
    parts = {f"model.layers.0.mlp.experts.{i}.up_proj.weight": mx.full((2, 3), i) for i in (10, 2)}
    parts |= {f"model.layers.0.mlp.experts.{i}.up_proj.weight": mx.full((2, 3), i) for i in range(11)}
    stacked = stack_experts(parts, 11)
    assert list(stacked) == ["model.layers.0.mlp.switch_mlp.up_proj.weight"]
    assert stacked["model.layers.0.mlp.switch_mlp.up_proj.weight"][:, 0, 0].tolist() == list(range(11))


def test_an_incomplete_set_of_experts_is_left_for_the_strict_check() -> None:
    parts = {f"model.layers.0.mlp.experts.{i}.up_proj.weight": mx.zeros((2, 3)) for i in (0, 2)}
    assert stack_experts(parts, 3) == parts


def test_stacked_checkpoints_stay_as_they_are() -> None:
    parts = {"model.layers.0.mlp.switch_mlp.up_proj.weight": mx.zeros((3, 2, 3))}
    assert stack_experts(parts, 3) == parts


def test_a_later_token_changes_no_earlier_logits(tiny_model: Model) -> None:
    ids = mx.array([[5, 6, 7, 8, 9]])
    changed = mx.array([[5, 6, 7, 50, 51]])
    before, after = tiny_model(ids), tiny_model(changed)
    assert mx.allclose(before[:, :3], after[:, :3], atol=1e-5)
    assert not mx.allclose(before[:, 3:], after[:, 3:], atol=1e-2)


def test_sequences_of_a_batch_do_not_mix(tiny_model: Model) -> None:
    ids = mx.array([[1, 2, 3, 4], [90, 80, 70, 60]])
    together = tiny_model(ids)
    alone = mx.concatenate([tiny_model(ids[:1]), tiny_model(ids[1:])])
    assert mx.abs(together - alone).max().item() < 1e-4


def test_protocol_of_mlx_lm(tiny_model: Model, tiny_raw: Raw) -> None:
    assert tiny_model.model_type == tiny_raw["model_type"]
    assert len(tiny_model.layers) == tiny_model.args.num_hidden_layers == len(tiny_model.make_cache())
    assert all(isinstance(layer, KVCache) for layer in tiny_model.make_cache())


@pytest.mark.parametrize(
    ("rows", "shares_rows"), [(5, False), (5, True), (200, False)], ids=["gathered", "shared rows", "sorted"]
)
def test_experts_equal_a_loop_over_tokens(rows: int, shares_rows: bool) -> None:
    mx.random.seed(3)
    block = SparseMoeBlock(ModelConfig.from_dict(MOE))
    block.switch_mlp.shares_rows = shares_rows
    assert (rows * block.num_experts_per_tok >= SwitchMLP.sort_from) == (rows == 200)
    x = mx.random.normal((1, rows, 64))
    mixed = np.array(block(x))[0]
    experts, mixture = (np.array(value) for value in block.route(x[0]))
    mlp = block.switch_mlp
    for row in range(0, rows, 7):
        expected = 0
        for expert, weight in zip(experts[row], mixture[row], strict=True):
            gate, up, down = (m.weight[int(expert)] for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
            expected += weight * np.array((nn.silu(x[0, row] @ gate.T) * (x[0, row] @ up.T)) @ down.T)
        assert np.abs(mixed[row] - expected).max() < 1e-5


def test_routing_takes_the_likeliest_experts() -> None:
    mx.random.seed(4)
    x = mx.random.normal((20, 64))
    for norm in (True, False):
        block = SparseMoeBlock(ModelConfig.from_dict({**MOE, "norm_topk_prob": norm}))
        experts, mixture = block.route(x)
        probabilities = np.array(mx.softmax(block.gate(x), axis=-1))
        best = np.sort(probabilities, axis=-1)[:, -3:]
        assert np.allclose(np.sort(np.take_along_axis(probabilities, np.array(experts), -1)), best)
        total = np.array(mixture.sum(axis=-1))
        assert np.allclose(total, 1 if norm else best.sum(-1), atol=1e-5)


def test_routing_is_done_in_fp32_for_16_bit_models() -> None:
    """These logits differ in bf16; their probabilities would be equal in bf16."""
    block = SparseMoeBlock(ModelConfig.from_dict(MOE))
    order = [3, 7, 0, 5, 1, 6, 2, 4]
    block.gate.weight = mx.zeros((8, 64)).at[:, 0].add(mx.array([0.25 + rank * 2**-9 for rank in order]))
    block.set_dtype(mx.bfloat16)
    x = mx.zeros((4, 64), mx.bfloat16).at[:, 0].add(1)
    experts, mixture = block.route(x)
    assert sorted(experts[0].tolist()) == sorted(order.index(rank) for rank in (5, 6, 7))
    assert mixture.dtype == block(x[None]).dtype == mx.bfloat16


def test_yarn_of_factor_one_is_plain_rope() -> None:
    x = mx.random.normal((1, 2, 9, 32))
    plain = make_rope(ModelConfig.from_dict(DENSE))(x, offset=5)
    scaled = YarnRoPE(32, 1e6, RopeScaling(1.0, 32768))(x, offset=5)
    assert mx.allclose(plain, scaled, atol=1e-5)
    assert yarn_attention_factor(1.0) == 1.0


def test_yarn_keeps_fast_pairs_and_divides_slow_ones() -> None:
    plain = [1e6 ** (2 * i / 128) for i in range(64)]
    scaled = yarn_wavelengths(128, 1e6, RopeScaling(4.0, 32768))
    ratios = [s / p for s, p in zip(scaled, plain, strict=True)]
    assert ratios[0] == pytest.approx(1)
    assert ratios[-1] == pytest.approx(4)
    assert ratios == sorted(ratios)


def test_offset_of_each_row(make_model: Callable[[Raw], Model]) -> None:
    for raw in (DENSE, {**DENSE, **yarn(2)}):
        rope = make_rope(ModelConfig.from_dict(raw))
        x = mx.random.normal((2, 2, 3, 32))
        rows = mx.concatenate([rope(x[:1], offset=4), rope(x[1:], offset=9)])
        assert mx.allclose(rope(x, offset=mx.array([4, 9])), rows, atol=1e-5)


def test_quantized_model_takes_published_names(tiny_raw: Raw) -> None:
    model = Model(ModelConfig.from_dict(tiny_raw))
    model.load_weights(list(model.sanitize({k: mx.array(v) for k, v in weights(tiny_raw).items()}).items()))
    nn.quantize(model, 32, 8, class_predicate=lambda _, m: hasattr(m, "to_quantized") and _fits(m))
    logits = model(mx.array([[1, 2, 3]]))
    assert logits.shape == (1, 3, tiny_raw["vocab_size"])
    assert bool(mx.isfinite(logits).all())


def _fits(module: nn.Module) -> bool:
    return module.weight.shape[-1] % 32 == 0


@pytest.mark.parametrize(("queries", "rows"), [(64, 64), (256, 256), (1, 1200)])
def test_a_gpu_without_a_kernel_for_the_head_size_is_not_made_to_wait_for_tiles(
    queries: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k = mx.random.normal((1, 16, queries, 32)), mx.random.normal((1, 8, rows, 32))
    tiled = attention_kernels.attend(q, k, k, 0.2, "causal")
    monkeypatch.setattr(attention_kernels, "is_cpu", lambda: False)
    monkeypatch.setattr(attention_kernels, "_tiled", None)
    assert mx.allclose(attention_kernels.attend(q, k, k, 0.2, "causal"), tiled, atol=1e-5)
