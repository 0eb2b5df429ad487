"""An engine over several ranks does what one on one machine does: every kind of request, token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from distributed import scenarios
from distributed.ranks import finish, start_ranks
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint

from mlx_qwen3 import Engine

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
