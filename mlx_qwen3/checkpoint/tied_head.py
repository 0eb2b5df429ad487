"""Tells which output head a checkpoint has: its own, the embedding, or (of an embedding model) none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig

HEAD, EMBEDDING = "lm_head.", "model.embed_tokens."
CHUNK_BYTES = 2**24


def config_with_own_head(config: ModelConfig, stored: Mapping[str, StoredTensor]) -> ModelConfig:
    """`config`, untied if the stored output head is not the embedding, as transformers does it.

    Fine-tunes that trained both keep `tie_word_embeddings: true`. Reads both tensors until they differ.
    Without an output head of its own that the config asks for, a model can still make embeddings.
    Raises CheckpointError if the tensors cannot be read.
    """
    if config.has_own_head and not any(name.startswith(HEAD) for name in stored):
        return replace(config, has_output_head=False)
    head = {name: tensor for name, tensor in stored.items() if name.startswith(HEAD)}
    if not config.tie_word_embeddings or f"{HEAD}weight" not in head:
        return config
    if all(_is_same(tensor, stored.get(name.replace(HEAD, EMBEDDING, 1))) for name, tensor in head.items()):
        return config
    return replace(config, tie_word_embeddings=False)


def _is_same(head: StoredTensor, embedding: StoredTensor | None) -> bool:
    if embedding is None or (head.shape, head.dtype) != (embedding.shape, embedding.dtype):
        return False
    try:
        with head.file.open("rb") as one, embedding.file.open("rb") as other:
            one.seek(head.offset)
            other.seek(embedding.offset)
            for start in range(0, head.num_bytes, CHUNK_BYTES):
                size = min(CHUNK_BYTES, head.num_bytes - start)
                if one.read(size) != other.read(size):
                    return False
    except OSError as error:
        raise CheckpointError(f"{head.file} could not be read: {error.strerror or error}") from error
    return True
