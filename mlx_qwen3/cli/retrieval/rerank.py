"""`mlx-qwen3 rerank`: scores documents by how well they answer a query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_qwen3.cli.flags import MODEL
from mlx_qwen3.cli.open_engine import open_engine
from mlx_qwen3.cli.output import write_json
from mlx_qwen3.cli.retrieval.json_lines import groups, read_objects, refuse_unknown, text_of
from mlx_qwen3.errors import MessageError

if TYPE_CHECKING:
    from mlx_qwen3.engine import Engine

RERANKER = "Qwen/Qwen3-Reranker-0.6B"


def rerank(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="With --query a document per line, or JSON lines (document, id); without it JSON lines "
            "(query, documents, id). Standard input if it is left out."
        ),
    ] = None,
    query: Annotated[str | None, typer.Option("--query", "-q", help="What is searched for.")] = None,
    model: Annotated[str, MODEL] = RERANKER,
    instruction: Annotated[
        str | None, typer.Option(help="What makes a document relevant, in one sentence.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="With --query: only so many documents, the best first.")
    ] = None,
) -> None:
    """Print the score of each document, from 0 to 1, as JSON lines (id, score; or id, scores)."""
    if top is not None and query is None:
        raise typer.BadParameter("needs a query (--query)", param_hint="--top")
    rows = read_objects(file, "document" if query is not None else "query")
    with open_engine(model, draft_model=None) as engine:
        if query is None:
            for row in rows:
                _score_documents(engine, row, instruction)
            return
        best: list[tuple[float, Any]] = []
        for group in groups(rows):
            for row in group:
                refuse_unknown(row, ("id", "document"))
            scores = engine.rerank(query, [text_of(row, "document") for row in group], instruction)
            scored = [(score, row["id"]) for score, row in zip(scores, group, strict=True)]
            if top is None:
                _print(scored)
            else:
                best = sorted([*best, *scored], key=lambda pair: -pair[0])[:top]
        _print(best)


def _score_documents(engine: Engine, row: dict[str, Any], instruction: str | None) -> None:
    """Score the documents of a line that has its own query."""
    refuse_unknown(row, ("id", "query", "documents"))
    documents = row.get("documents")
    if not isinstance(documents, list):
        raise MessageError(f"documents must be a list of texts in the line with id {row['id']!r:.40}")
    scores = engine.rerank(text_of(row, "query"), documents, instruction)
    write_json(json.dumps({"id": row["id"], "scores": scores}))


def _print(scored: list[tuple[float, Any]]) -> None:
    for score, id_ in scored:
        write_json(json.dumps({"id": id_, "score": score}))
