"""An engine over several ranks does what one on one machine does: every kind of request, token by token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import scenarios
from distributed.ranks import finish, start_ranks
from embedding_models import write_embedding_model, write_reranker
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint

from mlx_qwen3 import Engine
from mlx_qwen3.errors import CacheError

WORKER = Path(__file__).with_name("run_engine.py")
MODEL = DENSE | {"vocab_size": 320, "max_position_embeddings": 4096, "head_dim": 64}
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "window": {"max_kv_size": 128, "kv_bits": 8},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, MODEL)
    return write_byte_tokenizer(folder)


@pytest.mark.parametrize(("mode", "kind"), [("tensor", "full"), ("pipeline", "window")])
def test_everything_is_as_on_one_machine(mode: str, kind: str, checkpoint: Path, tmp_path: Path) -> None:
    options = OPTIONS[kind]
    arguments = [str(WORKER), str(checkpoint), mode, "everything", json.dumps(options)]
    ranks = start_ranks(2, tmp_path, arguments, MLX_QWEN3_PLAIN="1")
    with Engine(checkpoint, **options) as engine:
        expected = scenarios.everything(engine)
    results = finish(ranks)
    assert [code for code, _, _ in results] == [0, 0], results
    found = json.loads(results[0][1])
    for name, value in json.loads(json.dumps(expected)).items():
        assert found[name] == value, name
    assert results[1][1:] == ("", "")


@pytest.mark.parametrize(
    ("mode", "write", "scenario"),
    [
        ("tensor", write_reranker, "reranked"),
        ("pipeline", write_reranker, "reranked"),
        ("pipeline", write_embedding_model, "embedded"),
    ],
)
def test_embeddings_and_scores_are_those_of_one_machine(
    mode: str, write: Callable[[Path], Path], scenario: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model")
    ranks = start_ranks(2, tmp_path, [str(WORKER), str(folder), mode, scenario, "{}"], MLX_QWEN3_PLAIN="1")
    with Engine(folder) as engine:
        expected = getattr(scenarios, scenario)(engine)
    results = finish(ranks)
    assert [code for code, _, _ in results] == [0, 0], results
    found = json.loads(results[0][1])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "text":
            assert found[name] == value
        else:
            np.testing.assert_allclose(found[name], value, atol=1e-5)


@pytest.mark.parametrize(("mode", "kind"), [("tensor", "full"), ("pipeline", "window")])
def test_caches_are_kept_in_files_of_each_rank(
    mode: str, kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = [
        str(WORKER),
        str(checkpoint),
        mode,
        "kept_in_parts",
        json.dumps(OPTIONS[kind]),
        str(tmp_path),
    ]
    home = tmp_path / "home"  # where the parts are
    own = {"MLX_QWEN3_PLAIN": "1", "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    ranks = start_ranks(2, tmp_path, arguments, **own)
    results = finish(ranks)
    assert [code for code, _, _ in results] == [0, 0], results
    found = json.loads(results[0][1])
    with Engine(checkpoint, **OPTIONS[kind]) as engine:
        for name, value in scenarios.kept(engine, tmp_path / "alone.safetensors").items():
            assert found[name] == value, name
        with pytest.raises(CacheError, match="was saved by a model over several machines"):
            engine.session().load_cache(tmp_path / "cache.safetensors")
    assert found["cached"] > 100
    assert found["parts"] == [True], "one file for a cache that was saved twice"
    assert re.match(r"rank 1 \(.*\) did not load its part of the KV cache: its part .* is not", found["lost"])
    assert found["after"] == found["first"]


@pytest.mark.parametrize("mode", ["tensor", "pipeline"])
def test_a_rank_takes_its_share_of_memory_and_sends_what_is_foreseen(mode: str, tmp_path: Path) -> None:
    raw = MODEL | {"hidden_size": 512, "num_hidden_layers": 4, "intermediate_size": 1024}
    folder = write_byte_tokenizer(tmp_path / "model")
    write_checkpoint(folder, raw)
    ranks = start_ranks(2, tmp_path, [str(WORKER), str(folder), mode, "weighed", "{}"], MLX_QWEN3_PLAIN="1")
    results = finish(ranks)
    assert [code for code, _, _ in results] == [0, 0], results
    found = json.loads(results[0][1])
    of_prompt, of_token = found["foreseen"]
    # The pass after the last token may have begun when that is known.
    assert found["sent"] - of_prompt in (7 * of_token, 8 * of_token)
    share = (folder / "model.safetensors").stat().st_size / 2
    assert found["peak"] <= 1.1 * share + 4e6, "weights; 4 MB are for the cache and one pass"


def test_ranks_that_differ_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """The same name, and other weights."""
    other = tmp_path / "there"
    write_byte_tokenizer(other)
    tensors = MODEL
    write_checkpoint(other / "model", tensors)
    (here := tmp_path / "here").mkdir()
    for folder in (here, other):
        if not (folder / "model").exists():
            (folder / "model").symlink_to(checkpoint, target_is_directory=True)
    weights = other / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    weights.write_bytes(content)
    arguments = ["-c", CHANGE_FOLDER, str(here), str(other), str(WORKER)]
    results = finish(start_ranks(2, tmp_path, arguments, MLX_QWEN3_PLAIN="1"))
    line = "differs in model.safetensors"
    assert [code for code, _, _ in results] == [1, 1], results
    assert all(line in error and "rank 1 (" in error for _, _, error in results), results


# Each rank finds another model under the same short name.
CHANGE_FOLDER = """
import os, sys
here, other, worker = sys.argv[1:]
import mlx_qwen3
from mlx_qwen3.checkpoint import locate
from pathlib import Path
place = Path(here if os.environ["MLX_RANK"] == "0" else other) / "model"
locate.PACKAGED["twin"] = place
from mlx_qwen3 import Engine
from mlx_qwen3.errors import Qwen3Error
try:
    Engine("twin", distributed="tensor")
except Qwen3Error as error:
    sys.exit(f"error: {error}")
"""
