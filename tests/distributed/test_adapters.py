"""Adapters over several ranks: each rank has its part of them, and the texts are those of one machine."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from distributed import scenarios
from distributed.ranks import finish, start_ranks
from engine.test_adapters import write_adapter
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, write_checkpoint

from mlx_qwen3 import Engine
from mlx_qwen3.adapters import adapter_share
from mlx_qwen3.adapters.adapter import Adapter, LowRank
from mlx_qwen3.distributed.plan import plan_pipeline, plan_tensor
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig

WORKER = Path(__file__).with_name("run_engine.py")
ATTENTION = {"self_attn.q_proj": (128, 128), "self_attn.v_proj": (64, 128), "self_attn.o_proj": (128, 128)}
MLP = {"mlp.gate_proj": (256, 128), "mlp.up_proj": (256, 128), "mlp.down_proj": (128, 256)}


@pytest.mark.parametrize(("mode", "dora"), [("tensor", False), ("pipeline", True)])
def test_each_request_has_the_text_of_its_adapter(mode: str, dora: bool, tmp_path: Path) -> None:
    folder = write_byte_tokenizer(tmp_path / "model")
    write_checkpoint(folder, DENSE | {"vocab_size": 320})
    adapters = {
        "one": str(write_adapter(tmp_path / "one", 1, ATTENTION | MLP, dora)),
        "two": str(write_adapter(tmp_path / "two", 2, MLP)),
    }
    options = {"adapters": adapters, "adapter": "two"}
    arguments = [str(WORKER), str(folder), mode, "adapted", json.dumps(options)]
    ranks = start_ranks(2, tmp_path, arguments, MLX_QWEN3_PLAIN="1")
    with Engine(folder, adapters=adapters, adapter="two") as engine:
        expected = scenarios.adapted(engine)
    results = finish(ranks)
    assert [code for code, _, _ in results] == [0, 0], results
    assert json.loads(results[0][1]) == json.loads(json.dumps(expected))
    assert len(set(expected["texts"])) > 2, "the adapters change the texts"


def update(rows: int, columns: int, *experts: int) -> LowRank:
    random = np.random.default_rng(rows)
    a, b = random.normal(size=(*experts, 3, columns)), random.normal(size=(*experts, rows, 3))
    return LowRank(mx.array(a, mx.float32), mx.array(b, mx.float32), 2.0)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("raw", [DENSE, MOE], ids=["dense", "moe"])
def test_the_parts_of_all_ranks_make_the_whole(raw: dict[str, int], size: int) -> None:
    config = ModelConfig.from_dict(raw | {"num_key_value_heads": 4, "num_attention_heads": 4})
    head, hidden = config.head_dim, config.hidden_size
    experts = (config.num_experts,) if config.num_experts else ()
    width = config.moe_intermediate_size if experts else config.intermediate_size
    mlp = "mlp.switch_mlp" if experts else "mlp"
    updates = {
        "model.layers.1.self_attn.k_proj": update(4 * head, hidden),
        "model.layers.1.self_attn.o_proj": update(hidden, 4 * head),
        f"model.layers.1.{mlp}.up_proj": update(width, hidden, *experts),
        f"model.layers.1.{mlp}.down_proj": update(hidden, width, *experts),
    }
    whole = Adapter(Path("x"), updates, "digest")
    parts = [adapter_share(whole, share, config) for share in plan_tensor(config, size)]
    for path, each in updates.items():
        of_ranks = [part.updates[path] for part in parts]
        if path.endswith(("o_proj", "down_proj")):  # the ranks add up what they compute
            assert mx.array_equal(mx.concatenate([part.a for part in of_ranks], axis=-1), each.a)
            assert all(mx.array_equal(part.b, each.b) for part in of_ranks)
        else:
            assert mx.array_equal(mx.concatenate([part.b for part in of_ranks], axis=-2), each.b)
            assert all(mx.array_equal(part.a, each.a) for part in of_ranks)


def test_a_rank_of_a_pipeline_has_the_updates_of_its_layers() -> None:
    config = ModelConfig.from_dict(DENSE | {"num_hidden_layers": 5})
    updates = {f"model.layers.{layer}.mlp.up_proj": update(4 + layer, 8) for layer in range(5)}
    adapter = Adapter(Path("x"), updates, "digest")
    shares = plan_pipeline(config, [1] * 5, 1, [10**9] * 2)
    found = [adapter_share(adapter, share, config).updates for share in shares]
    rows = [each.b.shape[0] for part in found for _, each in sorted(part.items())]
    assert rows == [4, 5, 6, 7, 8]
    assert all(sorted(part)[0].startswith("model.layers.0.") for part in found)


def test_what_cannot_be_split_is_refused_in_a_line() -> None:
    config = ModelConfig.from_dict(DENSE)
    share = plan_tensor(config, 2)[0]
    magnitude = LowRank(mx.zeros((2, 256)), mx.zeros((128, 2)), 1.0, mx.ones(128))
    for path, each, problem in (
        ("model.layers.0.mlp.down_proj", magnitude, "is a DoRA adapter of model.layers.0.mlp.down_proj"),
        ("model.layers.0.mlp.up_proj", update(7, 128), "and the model has 256 rows there"),
        ("model.layers.9.mlp.up_proj", update(256, 128), "made for another model"),
        ("lm_head", update(320, 128), "which cannot be split over machines"),
    ):
        with pytest.raises(CheckpointError, match=problem):
            adapter_share(Adapter(Path("x"), {path: each}, ""), share, config)
