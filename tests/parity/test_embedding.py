"""Embeddings and scores are those of transformers and sentence-transformers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from embedding_models import INSTRUCTION, texts, write_embedding_model, write_reranker
from parity.separate_process import in_transformers, needs_transformers

from mlx_qwen3 import Engine

pytestmark = [pytest.mark.parity, needs_transformers]


def test_200_texts_of_all_lengths_and_languages(tmp_path: Path) -> None:
    folder = write_embedding_model(tmp_path)
    expected = in_transformers("embeddings", folder, texts(200), None)
    with Engine(folder) as engine:
        ours = engine.embed(texts(200))
    assert ours.dtype == np.float32
    assert (ours * expected).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.skipif(find_spec("sentence_transformers") is None, reason="needs sentence-transformers")
def test_sentence_transformers_with_an_instruction_and_fewer_dimensions(tmp_path: Path) -> None:
    dimensions, folder = 40, write_embedding_model(tmp_path)
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": 128,
        "pooling_mode_lasttoken": True,
        "pooling_mode_mean_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    content = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(content))
    prompt = f"Instruct: {INSTRUCTION}\nQuery:"
    expected = in_transformers("sentence_embeddings", folder, texts(30), prompt, dimensions)
    with Engine(folder) as engine:
        ours = engine.embed(texts(30), INSTRUCTION, dimensions)
    assert ours.shape == (30, dimensions)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_scores(tmp_path: Path, kind: str) -> None:
    folder = write_reranker(tmp_path, kind)
    expected = in_transformers("scores", folder, "what is 1+1?", texts(20), INSTRUCTION)
    with Engine(folder) as engine:
        ours = engine.rerank("what is 1+1?", texts(20), INSTRUCTION)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert max(ours) - min(ours) > 0.01  # so the test can fail
