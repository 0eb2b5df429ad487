"""Several ranks compute what one computes: logits and greedy tokens, for every kind of model and cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np
import pytest
from distributed.compute_logits import passes, sequences_of
from distributed.ranks import finish, start_ranks
from tiny_checkpoints import CACHES, DENSE, MOE, published_tensors, save_shards, write_checkpoint

from mlx_qwen3.checkpoint.load import load
from mlx_qwen3.generation.forward import joined, logits_at

WORKER = Path(__file__).with_name("compute_logits.py")
PROMPTS = [[5, 17, 299, 0, 42, 42, 8, 9, 11, 250, 3, 77, 1, 2, 6], [4, 4, 19], [100, 7, 201, 33, 90, 1, 12]]
WIDE = {"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 3}
QUANTIZATION = {"bits": 4, "group_size": 32}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Checkpoints: dense and mixture, fp32 and 4 bits, in three layouts, sharded, with scaled positions."""
    folder = tmp_path_factory.mktemp("models")
    yarn = {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}}
    write_checkpoint(folder / "dense", DENSE | WIDE, shards=3)
    write_checkpoint(folder / "moe", MOE | WIDE | yarn | {"moe_intermediate_size": 128})
    _write_quantized(folder / "dense 4-bit", DENSE | WIDE)
    _write_quantized(folder / "moe 4-bit", MOE | WIDE | {"moe_intermediate_size": 128})
    _write_fused(folder / "moe fused", MOE | WIDE)
    full = [(prompt, {}) for prompt in PROMPTS]
    mixed = list(zip([*PROMPTS, PROMPTS[0]], CACHES.values(), strict=True))
    kinds = {"dense": mixed, "moe": full, "dense 4-bit": full, "moe 4-bit": full, "moe fused": full}
    return [
        {"name": name, "folder": str(folder / name), "sequences": sequences, "tokens": 2}
        for name, sequences in kinds.items()
    ]


def _write_quantized(folder: Path, raw: dict[str, Any]) -> None:
    """An MLX checkpoint: experts stacked, matrices in 4 bits."""
    config = raw | {"quantization": QUANTIZATION}
    tensors: dict[str, mx.array] = {}
    from mlx_qwen3.model.qwen3 import stack_experts

    for name, value in stack_experts(published_tensors(raw), raw.get("num_experts", 0)).items():
        if value.ndim < 2 or name.endswith("mlp.gate.weight"):
            tensors[name] = value
            continue
        packed, scales, biases = mx.quantize(value, **QUANTIZATION)
        tensors |= {name: packed, f"{name[:-7]}.scales": scales, f"{name[:-7]}.biases": biases}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_shards(folder, tensors)


def _write_fused(folder: Path, raw: dict[str, Any]) -> None:
    """The layout of transformers 5: the experts of a layer in two tensors."""
    from mlx_qwen3.model.qwen3 import stack_experts

    stacked = stack_experts(published_tensors(raw), raw["num_experts"])
    tensors = {name: value for name, value in stacked.items() if ".switch_mlp." not in name}
    for name in [name for name in stacked if name.endswith("switch_mlp.gate_proj.weight")]:
        prefix = name.split(".switch_mlp.")[0]
        pair = [stacked[f"{prefix}.switch_mlp.{part}_proj.weight"] for part in ("gate", "up")]
        tensors[f"{prefix}.experts.gate_up_proj"] = mx.concatenate(pair, axis=1)
        tensors[f"{prefix}.experts.down_proj"] = stacked[f"{prefix}.switch_mlp.down_proj.weight"]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw))
    save_shards(folder, tensors)


@pytest.fixture(scope="module")
def expected(cases: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What one rank computes."""
    results = {}
    for case in cases:
        model = load(Path(case["folder"])).model

        def run(fed: Any, lengths: Any, caches: Any, rows: Any, model: Any = model) -> Any:
            return logits_at(model, joined(fed, len(fed) == 1), lengths, caches, rows)

        results[case["name"]] = passes(run, model, sequences_of(case), case["tokens"])
    return results


@pytest.mark.parametrize(
    ("mode", "size", "names"),
    [
        ("tensor", 2, None),
        ("tensor", 3, ("dense", "moe fused")),
        ("tensor", 4, ("moe 4-bit",)),
        ("pipeline", 3, None),
    ],
)
def test_ranks_compute_what_one_computes(
    mode: str,
    size: int,
    names: tuple[str, ...] | None,
    cases: list[Any],
    expected: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    """names: of the cases; None is all."""
    memories = {"pipeline": [2, 1, 1][:size]}.get(mode)  # uneven
    plan = [{**case, "memories": memories} for case in cases if names is None or case["name"] in names]
    arguments = [str(WORKER), str(tmp_path / "logits.npz"), mode, json.dumps(plan)]
    # On two ranks with the kernels of this machine, on more with MLX's own, which start faster.
    options = {} if size == 2 else {"MLX_QWEN3_PLAIN": "1"}
    for code, _, error in finish(start_ranks(size, tmp_path, arguments, **options)):
        assert code == 0, error
    found = np.load(tmp_path / "logits.npz")
    assert set(found) == {case["name"] for case in plan}
    for name in found:
        logits = expected[name]
        plain = slice(None, -1, 2) if name == "dense" else slice(None)  # the others of CACHES are quantized
        close(found[name][:, plain], logits[:, plain], 1e-4, name)
        # Rounding in a quantized cache turns the last bit of a value into a step of its grid.
        close(found[name], logits, 0.05, name)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float, name: str) -> None:
    assert np.abs(found - expected).max() <= tolerance * max(1, np.abs(expected).max()), name
    if tolerance <= 1e-4:
        assert (found.argmax(-1) == expected.argmax(-1)).all(), name
