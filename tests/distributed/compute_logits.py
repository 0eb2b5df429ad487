"""One rank of test_parity.py: loads its part of checkpoints and computes passes; rank 0 saves the logits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core

import mlx.core as mx  # isort: skip
import numpy as np

from mlx_qwen3.cache.config import CacheConfig
from mlx_qwen3.cache.layers import CacheLayers, as_layers
from mlx_qwen3.cache.prompt_cache import make_layer_caches
from mlx_qwen3.checkpoint.load import load_config
from mlx_qwen3.checkpoint.shares.load_share import load_share, plan_shares
from mlx_qwen3.distributed.group import Group
from mlx_qwen3.generation.forward import joined


def passes(run: Any, model: Any, sequences: list[tuple[list[int], CacheConfig]], tokens: int) -> np.ndarray:
    """Logits of: a chunk of the first prompt, the rests together, then greedy tokens of all, one by one."""
    caches = [as_layers(make_layer_caches(model, config)) for _, config in sequences]
    prompts = [prompt for prompt, _ in sequences]
    run([mx.array(prompts[0][:3], mx.uint32)], [3], caches[:1], [])
    rests = [prompts[0][3:], *prompts[1:]]
    fed, lengths = [mx.array(ids, mx.uint32) for ids in rests], [len(ids) for ids in rests]
    ends = list(np.cumsum(lengths) - 1)
    results = [np.array(run(fed, lengths, caches, [int(end) for end in ends]))]
    for _ in range(tokens):
        chosen = results[-1].argmax(axis=-1)
        fed = [mx.array([int(token)], mx.uint32) for token in chosen]
        results.append(np.array(run(fed, [1] * len(fed), caches, list(range(len(fed))))))
    return np.stack(results)


def sequences_of(case: dict[str, Any]) -> list[tuple[list[int], CacheConfig]]:
    """Each prompt of a case with its cache."""
    return [(prompt, CacheConfig(**options)) for prompt, options in case["sequences"]]


def main(folder: str, mode: str, plan: str) -> None:
    group = Group.join()
    saved = {}
    for case in json.loads(plan):
        config = load_config(case["folder"])
        shares = plan_shares(config, mode, case.get("memories") or [1] * group.size)
        shard, loaded = load_share(Path(case["folder"]), shares[group.rank], group, case.get("context"))
        step = 0

        def run(
            fed: Any,
            lengths: Any,
            caches: list[CacheLayers],
            rows: Any,
            shard: Any = shard,
            loaded: Any = loaded,
        ) -> Any:
            nonlocal step
            step += 1
            logits, computed = shard.run(
                joined(fed, len(fed) == 1) if group.rank == 0 else None, lengths, caches, rows, step
            )
            shard.check(computed, step)
            # The tests' ranks all need to know what comes next, and rank 0 alone has a pipeline's logits.
            known = logits if group.rank == 0 else mx.zeros((max(1, len(rows)), loaded.model.args.vocab_size))
            return group.all_sum(mx.zeros((1, 1)) if known is None else known.astype(mx.float32))

        saved[case["name"]] = passes(run, loaded.model, sequences_of(case), case["tokens"])
    if group.rank == 0:
        np.savez(folder, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
