"""Engine.embed and Engine.rerank: batches, lengths, bad input. tests/parity compares with transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embedding_models import INSTRUCTION, texts, write_embedding_model, write_reranker

import mlx_qwen3.engine.embedding as embedding
from mlx_qwen3 import Engine, load_model
from mlx_qwen3.conversion import convert
from mlx_qwen3.errors import CheckpointError, EngineError, MessageError, PromptTooLongError


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory):
    with Engine(write_embedding_model(tmp_path_factory.mktemp("embedding"))) as engine:
        yield engine


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory):
    with Engine(write_reranker(tmp_path_factory.mktemp("reranker"))) as engine:
        yield engine


@pytest.mark.parametrize("tokens", [24, 100, 100_000])
def test_a_text_gives_the_same_in_any_batch(embedder, monkeypatch, tokens):
    alone = np.concatenate([embedder.embed([text]) for text in texts(6)])
    monkeypatch.setattr(embedding, "CPU_TOKENS", tokens)
    monkeypatch.setattr(embedding, "GPU_TOKENS", tokens)
    np.testing.assert_allclose(embedder.embed(texts(6)), alone, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_fewer_dimensions_are_cut_and_of_length_one(embedder):
    whole, cut = embedder.embed(texts(5)), embedder.embed(texts(5), dimensions=32)
    expected = whole[:, :32] / np.linalg.norm(whole[:, :32], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_an_instruction_is_part_of_the_text(embedder):
    text = "what?"
    asked = embedder.embed([text], INSTRUCTION)
    np.testing.assert_allclose(asked, embedder.embed([f"Instruct: {INSTRUCTION}\nQuery:{text}"]), atol=1e-6)
    assert not np.allclose(asked, embedder.embed([text]))


def test_spellings_of_special_tokens_are_text(embedder, reranker):
    ids: list[list[int]] = []
    original = embedding._last_hidden_states
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            embedding, "_last_hidden_states", lambda core, batch: ids.extend(batch) or original(core, batch)
        )
        embedder.embed(["a<|endoftext|>b<|im_start|>"])
        reranker.rerank("<|im_end|>", ["<|im_end|>\n<|im_start|>assistant\n</think>"])
    of_text, of_pair = ids
    control = {id_: name for name, id_ in embedder.tokenizer.control_tokens.items()}
    assert [control[id_] for id_ in of_text if id_ in control] == ["<|endoftext|>"]
    written = [
        "<|im_start|>",
        "<|im_end|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|im_start|>",
        "<think>",
        "</think>",
    ]
    assert [control[id_] for id_ in of_pair if id_ in control] == written


def test_scores_keep_the_order_of_the_documents(reranker):
    documents = texts(9)
    scores = reranker.rerank("query", documents)
    assert [reranker.rerank("query", [document])[0] for document in documents] == pytest.approx(
        scores, abs=1e-5
    )
    assert all(0 < score < 1 for score in scores)
    assert reranker.rerank("query", documents, "Find the opposite") != pytest.approx(scores, abs=1e-3)


def test_nothing_gives_nothing(embedder, reranker):
    assert embedder.embed([]).shape == (0, 128)
    assert embedder.embed([], dimensions=7).shape == (0, 7)
    assert reranker.rerank("query", []) == []


@pytest.mark.parametrize("dimensions", [0, 129, True, "8", 1.5])
def test_dimensions_out_of_range(embedder, dimensions):
    with pytest.raises(EngineError, match="dimensions must be from 1 to 128"):
        embedder.embed(["a"], dimensions=dimensions)


@pytest.mark.parametrize("value", ["one text", [1], ["a", None], 5, [b"a"]])
def test_what_is_no_list_of_texts(embedder, reranker, value):
    with pytest.raises(MessageError, match="texts"):
        embedder.embed(value)
    with pytest.raises(MessageError, match="documents"):
        reranker.rerank("query", value)
    with pytest.raises(MessageError, match="instruction"):
        embedder.embed(["a"], instruction=3)
    with pytest.raises(MessageError, match="query"):
        reranker.rerank(None, ["a"])


def test_a_text_beyond_the_context(embedder):
    with pytest.raises(PromptTooLongError, match="text 1 has 32,769 tokens and the model reads 32,768"):
        embedder.embed(["short", "a" * 32768])


def test_a_model_without_output_head_writes_nothing(embedder, tmp_path):
    for start in (
        lambda: embedder.session().ask("hi"),
        lambda: embedder.complete("hi").text,
        lambda: list(embedder.generate_batch(["hi"])),
    ):
        with pytest.raises(EngineError, match="writes no text"):
            start()
    with pytest.raises(EngineError, match="cannot judge; use a Qwen3-Reranker"):
        embedder.rerank("query", ["a"])
    with pytest.raises(CheckpointError, match="embedding model, writes no text"):
        load_model(embedder.folder)


def test_a_closed_engine(tmp_path):
    engine = Engine(write_embedding_model(tmp_path))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.embed(["a"])


def test_between_answers(reranker):
    """A conversation's positions and caches are its own."""
    before = reranker.embed(texts(3))
    session = reranker.session(sampling={"max_tokens": 8, "seed": 1})
    events = session.send("hi")
    next(iter(events))
    np.testing.assert_allclose(reranker.embed(texts(3)), before, atol=2e-6)
    for _ in events:
        pass


@pytest.mark.parametrize("tied", [False, True])
def test_a_converted_embedding_model(tmp_path: Path, tied: bool):
    source = write_embedding_model(tmp_path / "source", tied)
    report = convert(source, tmp_path / "small", bits=8)
    assert report.verification is not None
    with Engine(source) as large, Engine(tmp_path / "small") as small:
        cosines = (large.embed(texts(8)) * small.embed(texts(8))).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.min() < 1 - 1e-9
