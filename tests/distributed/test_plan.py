"""The split of a model as plain values: it covers every part once, and refuses what cannot be."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import DENSE, MOE

from mlx_qwen3.checkpoint import FAMILY
from mlx_qwen3.checkpoint.shares.load_share import plan_shares
from mlx_qwen3.distributed.plan import Share, Span, plan_tensor, split_layers
from mlx_qwen3.distributed.slices import is_needed, slice_of, stored_name
from mlx_qwen3.errors import DistributedError
from mlx_qwen3.model.config import ModelConfig

SIZES_THAT_WORK = {
    "0.6b": [2, 3, 4, 5, 6, 7, 8, 16],
    "14b": [2, 3, 4, 5, 6, 7, 8],
    "30b-a3b": [2, 3, 4, 8],
    "235b-a22b": [2, 3, 4, 8, 16],
}


def covers(spans: list[Span], whole: int) -> bool:
    return (
        spans[0].start == 0 and spans[-1].stop == whole and all(a.stop == b.start for a, b in pairwise(spans))
    )


@pytest.mark.parametrize("name", SIZES_THAT_WORK)
def test_the_family_splits_over_these_sizes(name: str) -> None:
    config = FAMILY[name].config
    for size in range(2, 17):
        if size in SIZES_THAT_WORK[name]:
            shares = plan_tensor(config, size)
            assert covers([share.heads for share in shares], config.num_attention_heads)
            assert covers([share.vocabulary for share in shares], config.vocab_size)
            columns = [share.expert_columns if config.num_experts else share.columns for share in shares]
            assert covers(columns, config.moe_intermediate_size or config.intermediate_size)
            assert all(span.start % 64 == 0 and span.length for span in columns)
            group = config.num_attention_heads // config.num_key_value_heads
            for share in shares:  # a query has its keys on its own rank
                keys = {head // group for head in range(*share.heads)}
                assert keys == set(range(*share.kv_heads))
                assert share.heads.length % share.kv_heads.length == 0
        else:
            works = ", ".join(map(str, SIZES_THAT_WORK[name]))
            with pytest.raises(DistributedError, match=f"sizes that work: {works};"):
                plan_tensor(config, size)


def test_experts_are_split_inside_so_that_ranks_work_alike() -> None:
    shares = plan_tensor(FAMILY["30b-a3b"].config, 4)
    assert [share.expert_columns.length for share in shares] == [192] * 4


def test_quantization_groups_are_not_cut() -> None:
    raw = DENSE | {"quantization": {"bits": 4, "group_size": 64}}  # heads of 32 values, two key/value heads
    shares = plan_tensor(ModelConfig.from_dict(raw), 2)
    assert [share.heads.length for share in shares] == [2, 2]
    with pytest.raises(DistributedError, match="1 heads of 32 values do not fill quantization groups of 64"):
        plan_tensor(ModelConfig.from_dict(raw), 4)
    narrow = raw | {"intermediate_size": 64}
    with pytest.raises(DistributedError, match="intermediate_size 64 holds 1 quantization groups of 64"):
        plan_tensor(ModelConfig.from_dict(narrow), 2)


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(st.integers(1, 50), min_size=1, max_size=9),
    ends=st.integers(0, 60),
    data=st.data(),
)
def test_layers_are_split_as_well_as_any_split(layers: list[int], ends: int, data: Any) -> None:
    """Compared with every possible split."""
    size = data.draw(st.integers(1, min(4, len(layers))))
    memories = data.draw(st.lists(st.integers(1, 100), min_size=size, max_size=size))
    from itertools import combinations

    def fullest(bounds: list[int]) -> float:
        return max(
            (sum(layers[a:b]) + (ends if rank == 0 else 0)) / memories[rank]
            for rank, (a, b) in enumerate(pairwise(bounds))
        )

    spans = split_layers(layers, ends, memories)
    found = [span[0] for span in spans] + [spans[-1][1]]
    assert covers([Span(*span) for span in spans], len(layers))
    assert all(stop > start for start, stop in spans)
    every = ([0, *cuts, len(layers)] for cuts in combinations(range(1, len(layers)), size - 1))
    assert fullest(found) == min(map(fullest, every))


def test_a_pipeline_gives_layers_by_memory() -> None:
    config = FAMILY["235b-a22b"].config
    shares = plan_shares(config, "pipeline", [64 * 10**9, 192 * 10**9])
    assert shares[0].layers.length < shares[1].layers.length / 2.5
    assert [share.has_embedding for share in shares] == [True, False]
    with pytest.raises(DistributedError, match="3 layers; use at most 3 ranks"):
        plan_shares(ModelConfig.from_dict(MOE), "pipeline", [1] * 4)


def test_shares_travel_as_values() -> None:
    for share in plan_tensor(FAMILY["30b-a3b"].config, 3):
        assert Share.from_values(share.to_values()) == share
    with pytest.raises(DistributedError, match="cannot be read"):
        Share.from_values({"rank": 1})


def test_each_tensor_has_its_slice() -> None:
    config = FAMILY["30b-a3b"].config
    share = plan_tensor(config, 2)[1]
    cut = slice_of("model.layers.3.mlp.experts.7.down_proj.weight", share, config)
    assert cut is not None
    assert (cut.axis, cut.span, cut.width) == (-1, Span(384, 768), 768)
    assert cut.of(96) == Span(48, 96)  # packed in 4 bits
    assert cut.of(12) == Span(6, 12)  # scales
    assert slice_of("model.layers.3.mlp.gate.weight", share, config) is None
    later = plan_shares(config, "pipeline", [10**9] * 2)[1]
    first = later.layers.start
    assert stored_name("model.layers.0.self_attn.q_proj.weight", later).startswith(f"model.layers.{first}.")
    assert not is_needed("model.embed_tokens.weight", later)
    assert not is_needed(f"model.layers.{first - 1}.mlp.gate.weight", later)
    assert is_needed(f"model.layers.{first}.mlp.gate.weight", later)
