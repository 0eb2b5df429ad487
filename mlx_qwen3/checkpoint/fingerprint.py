"""Identifies the model of a saved KV cache: with another model, template or RoPE its values are wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from mlx_qwen3.checkpoint.safetensors_files import stored_tensors, tensors_in
from mlx_qwen3.checkpoint.tensor_names import StoredTensor
from mlx_qwen3.model.config import ModelConfig

SAMPLE_BYTES = 4096  # read of each tensor: reading all would take as long as loading


def model_fingerprint(folder: Path, config: ModelConfig, template: str) -> dict[str, str]:
    """Name -> value or digest of all that a KV cache of this model depends on.

    Weights are identified by names, dtypes, shapes and a sample of each tensor. Raises CheckpointError.
    """
    quantization = config.quantization.to_dict() if config.quantization else None
    unscaled = replace(config, rope_scaling=None, quantization=None)
    return {
        "quantization": json.dumps(quantization, sort_keys=True),
        "template": _digest(template.encode()),
        "rope": f"theta {config.rope_theta:g}, {config.rope_scaling}",
        "model": _digest(repr(unscaled).encode(), _weights(folder)),
    }


def file_digests(files: Iterable[Path]) -> dict[str, str]:
    """Name -> digest of each weight file, of the same kind. Raises CheckpointError."""
    return {file.name: _digest_of(tensors_in(file)).hex() for file in sorted(set(files))}


def _weights(folder: Path) -> bytes:
    return _digest_of(stored_tensors(folder).values())


def _digest_of(tensors: Iterable[StoredTensor]) -> bytes:
    digest = blake2b(digest_size=16)
    for tensor in sorted(tensors, key=lambda tensor: (tensor.file, tensor.offset)):
        digest.update(f"{tensor.name} {tensor.dtype} {tensor.shape}".encode())
        with tensor.file.open("rb") as file:
            file.seek(tensor.offset + max(0, tensor.num_bytes - SAMPLE_BYTES) // 2)
            digest.update(file.read(min(SAMPLE_BYTES, tensor.num_bytes)))
    return digest.digest()


def _digest(*parts: bytes) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
