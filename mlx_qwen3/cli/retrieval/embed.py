"""`mlx-qwen3 embed`: embeddings of texts, one line of JSON for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mlx_qwen3.cli.flags import MODEL
from mlx_qwen3.cli.open_engine import open_engine
from mlx_qwen3.cli.output import write_json
from mlx_qwen3.cli.retrieval.json_lines import groups, read_objects, refuse_unknown, text_of

EMBEDDING_MODEL = "Qwen/Qwen3-Embedding-0.6B"
FIELDS = ("id", "text")
DIGITS = 7  # of an fp32 number; more say nothing


def embed(
    file: Annotated[
        Path | None,
        typer.Argument(help="A text per line, or JSON lines (text, id). Standard input if it is left out."),
    ] = None,
    model: Annotated[str, MODEL] = EMBEDDING_MODEL,
    instruction: Annotated[
        str | None,
        typer.Option(help="What is searched for, in one sentence. For queries; documents have none."),
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(min=1, help="Keep the first so many numbers of each embedding.")
    ] = None,
) -> None:
    """Print the embedding of each text, as JSON lines (id, embedding)."""
    rows = read_objects(file, "text")
    with open_engine(model, draft_model=None) as engine:
        for group in groups(rows):
            for row in group:
                refuse_unknown(row, FIELDS)
            vectors = engine.embed([text_of(row, "text") for row in group], instruction, dimensions)
            for row, vector in zip(group, vectors.tolist(), strict=True):
                numbers = [float(f"{number:.{DIGITS}g}") for number in vector]
                write_json(json.dumps({"id": row["id"], "embedding": numbers}))
