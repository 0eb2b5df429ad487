"""llama.cpp computes from a file the logits that we compute from its conversion.

Opt-in, since it compiles for minutes: MLX_QWEN3_LLAMA_CPP names a Python that has `llama-cpp-python`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from conversion.test_gguf import EXPERTS, KINDS, WIDE, tokenizer  # noqa: F401  # a fixture
from gguf_files import ARCHITECTURES, Kind, gguf_weights, named, write_gguf
from tiny_checkpoints import read_tensors

import mlx_qwen3
from mlx_qwen3 import load_model, load_tokenizer
from mlx_qwen3.conversion import convert
from mlx_qwen3.model.config import read_json

PYTHON = os.environ.get("MLX_QWEN3_LLAMA_CPP", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="MLX_QWEN3_LLAMA_CPP names no Python with llama-cpp-python"
)
DEMO = Path(mlx_qwen3.__file__).parent / "demo"
PROGRAM = """
import json, sys
import numpy as np
from llama_cpp import Llama
ids, count = json.loads(sys.argv[2]), int(sys.argv[3])
llm = Llama(sys.argv[1], n_ctx=512, logits_all=True, verbose=False)
llm.eval(ids)
logits, greedy = np.array(llm.scores[: len(ids)]).tolist(), []
for _ in range(count):
    greedy.append(int(np.argmax(llm.scores[llm.n_tokens - 1])))
    llm.eval(greedy[-1:])
json.dump([logits, greedy], sys.stdout)
"""


def llama_cpp(file: Path, ids: list[int], count: int = 0) -> tuple[np.ndarray, list[int]]:
    """Logits after each of `ids`, and the `count` most likely tokens that follow."""
    command = [PYTHON, "-c", PROGRAM, str(file), json.dumps(ids), str(count)]
    logits, greedy = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return np.array(logits), greedy


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_0], ids=lambda kind: kind.name)
def test_the_demo_goes_on_alike(tmp_path, kind):
    convert("demo", tmp_path / "demo", bits=None, dequantize=True, dtype="float32", verify=False)
    raw = read_json(tmp_path / "demo" / "config.json")
    names = gguf.get_tensor_name_map(ARCHITECTURES["qwen3"], raw["num_hidden_layers"])
    weights = {named(names, name): np.array(value) for name, value in read_tensors(tmp_path / "demo").items()}
    write_gguf(tmp_path / "a.gguf", raw, weights, kind, DEMO)
    convert(tmp_path / "a.gguf", tmp_path / "out", bits=None, dtype="float32", verify=False)
    ids = load_tokenizer("demo").apply_chat_template([{"role": "user", "content": "what is 47+85?"}])
    model = load_model(tmp_path / "out")
    cache, inputs, ours = model.make_cache(), ids, []
    for _ in range(60):
        ours.append(int(np.argmax(np.array(model(mx.array([inputs]), cache=cache)[0, -1]))))
        inputs = ours[-1:]
    assert llama_cpp(tmp_path / "a.gguf", ids, 60)[1] == ours


@pytest.mark.parametrize("raw", [WIDE, EXPERTS], ids=["dense", "moe"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_logits_are_alike(tmp_path, tokenizer, raw, kind):  # noqa: F811
    write_gguf(
        tmp_path / "a.gguf",
        raw,
        gguf_weights(raw),
        lambda name: Kind.F32 if "inp" in name else kind,
        tokenizer,
    )
    convert(tmp_path / "a.gguf", tmp_path / "out", bits=None, dtype="float32", verify=False)
    ids = np.random.default_rng(0).integers(0, 280, 64).tolist()
    ours = np.array(load_model(tmp_path / "out")(mx.array([ids]))[0])
    theirs, _ = llama_cpp(tmp_path / "a.gguf", ids)
    # llama.cpp rounds activations to 8 bits; which expert runs may hang on that.
    assert np.linalg.norm(ours - theirs) < (0.05 if raw is WIDE else 0.2) * np.linalg.norm(ours)
