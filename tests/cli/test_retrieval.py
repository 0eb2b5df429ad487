"""`mlx-qwen3 embed` and `rerank`: JSON lines in and out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from embedding_models import texts, write_embedding_model, write_reranker
from typer.testing import CliRunner

from mlx_qwen3 import Engine
from mlx_qwen3.cli.app import app
from mlx_qwen3.cli.retrieval import json_lines
from mlx_qwen3.errors import MessageError


def lines(*arguments: object, stdin: str | None = None) -> list[dict]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None:
        raise result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_model(tmp_path_factory.mktemp("embedding"))


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reranker(tmp_path_factory.mktemp("reranker"))


def test_embeddings_of_lines(embedder: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_lines, "GROUP", 2)
    rows = lines("embed", "--model", embedder, "--dimensions", 16, stdin="one\n\ntwo words\r\nthree")
    assert [row["id"] for row in rows] == [1, 3, 4]
    with Engine(embedder) as engine:
        expected = engine.embed(["one", "two words", "three"], dimensions=16)
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-6)


def test_embeddings_of_objects_in_a_file(embedder: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "a\u2028b", "id": "x"}\n{"text": ""}\n')
    rows = lines("embed", file, "--model", embedder, "--instruction", "Find it")
    assert [row["id"] for row in rows] == ["x", 2]
    assert len(rows[0]["embedding"]) == 128


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"text": "a"}\nb\n', "line 2 is not a JSON object"),
        ('{"text": 3}\n', "text is not text in the line with id 1"),
        ('{"id": 7}\n', "text is missing in the line with id 7"),
        ('{"text": "a", "txet": "b"}\n', "there is no field 'txet'"),
    ],
)
def test_lines_that_cannot_be_embedded(embedder: Path, tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "texts.jsonl").write_text(content)
    with pytest.raises(MessageError, match=problem):
        lines("embed", tmp_path / "texts.jsonl", "--model", embedder)


def test_a_file_that_is_not_there(embedder: Path, tmp_path: Path) -> None:
    with pytest.raises(MessageError, match=r"none\.txt cannot be read: No such file"):
        lines("embed", tmp_path / "none.txt", "--model", embedder)


def test_scores_of_lines_and_the_best(reranker: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_lines, "GROUP", 2)
    documents = [text.replace("\n", " ") or "empty" for text in texts(5)]
    stdin = "\n".join(documents)
    rows = lines("rerank", "--query", "what?", "--model", reranker, stdin=stdin)
    with Engine(reranker) as engine:
        assert [row["score"] for row in rows] == pytest.approx(engine.rerank("what?", documents), abs=1e-5)
    best = sorted(rows, key=lambda row: -row["score"])[:3]
    top = lines("rerank", "-q", "what?", "--top", 3, "--model", reranker, stdin=stdin)
    assert [row["id"] for row in top] == [row["id"] for row in best]


def test_scores_of_lines_with_queries_of_their_own(reranker: Path) -> None:
    row = {"query": "what?", "documents": ["a", "b"], "id": "q"}
    (scores,) = lines("rerank", "--model", reranker, stdin=json.dumps(row))
    assert scores["id"] == "q"
    assert len(scores["scores"]) == 2
    with pytest.raises(MessageError, match="documents must be a list of texts in the line with id 1"):
        lines("rerank", "--model", reranker, stdin='{"query": "what?", "documents": "a"}')
    assert CliRunner().invoke(app, ["rerank", "--top", "3"]).exit_code == 2
