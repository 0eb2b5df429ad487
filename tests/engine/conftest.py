"""An engine whose model says what a test scripted for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import ScriptedModel, loaded, write_byte_tokenizer

import mlx_qwen3.engine.core
from mlx_qwen3 import Engine
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that runs a ScriptedModel; `engine.model.turns` is what it says."""
    folder = write_byte_tokenizer(tmp_path)
    monkeypatch.setattr(mlx_qwen3.engine.core, "resolve", lambda *_, **__: folder)
    monkeypatch.setattr(
        mlx_qwen3.engine.core,
        "load",
        lambda folder, *_, **__: loaded(ScriptedModel(load_tokenizer(folder)), folder),
    )
    with Engine("scripted") as engine:
        yield engine
