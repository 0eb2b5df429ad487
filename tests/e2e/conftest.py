"""A model for the chat that never ends a turn by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import mlx_qwen3  # isort: skip  # before mlx.core
import mlx.core as mx

from mlx_qwen3 import Engine
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_compiled() -> None:
    """By this process, or none would be in time: a test waits 30 s for a program's prompt."""
    with Engine("demo"):
        pass


@pytest.fixture(scope="module")
def rambler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo as a model with a long context that always thinks and never ends its turn."""
    demo = Path(mlx_qwen3.__file__).parent / "demo"
    folder = shutil.copytree(demo, tmp_path_factory.mktemp("model") / "rambler")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 131072}))
    template = (folder / "chat_template.jinja").read_text()
    opening, _, _ = template.rpartition("    {{- '<think>\\n\\n</think>\\n\\n' if enable_thinking is defined")
    opening = opening.replace("enable_thinking", "some_other_name")
    (folder / "chat_template.jinja").write_text(opening + "    {{- '<think>\\n' -}}\n{%- endif -%}\n")
    tensors, endings = mx.load(str(folder / "model.safetensors")), load_tokenizer(folder).control_tokens
    # A logit of 0 keeps the special tokens out of the top_k that are sampled from.
    for part in ("scales", "biases"):
        tensors[f"model.embed_tokens.{part}"][list(endings.values())] = 0
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "mlx"})
    return str(folder)
