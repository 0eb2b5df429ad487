"""Verifies a converted checkpoint: its files, every tensor against its source, and its predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.checkpoint.safetensors_files import INDEX, few, stored_tensors
from mlx_qwen3.checkpoint.transfer.transfer import OnDownload
from mlx_qwen3.checkpoint.validation import build_model, parameter_shapes
from mlx_qwen3.conversion.checksums import changed_files
from mlx_qwen3.conversion.options import PATHS, check_callback, check_type
from mlx_qwen3.conversion.progress import CHECKING, PROBING, Meter, OnProgress
from mlx_qwen3.conversion.source.chunks import is_finite, row_chunks
from mlx_qwen3.conversion.source.open import open_folder, open_source
from mlx_qwen3.conversion.source.original import SourceCheckpoint
from mlx_qwen3.conversion.source.tensors import SourceTensor, parameter_tensor
from mlx_qwen3.conversion.verification.compare import TensorCheck, compare
from mlx_qwen3.conversion.verification.probe import Probe, probe
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import ModelConfig, read_json


@dataclass(frozen=True)
class Verification:
    """The result of verifying a checkpoint without faults.

    Attributes:
        tensors: How far each tensor is from its source; empty if no source was given.
        probe: How far the predictions are from the source's; None if they were not compared.
        has_checksums: Whether there was a SHA256SUMS to check the files with.
    """

    tensors: tuple[TensorCheck, ...] = ()
    probe: Probe | None = None
    has_checksums: bool = False

    @property
    def error(self) -> float:
        """The relative error of all weights together."""
        norm = sum(tensor.norm**2 for tensor in self.tensors)
        return math.sqrt(sum((tensor.error * tensor.norm) ** 2 for tensor in self.tensors) / (norm or 1))

    @property
    def worst(self) -> TensorCheck | None:
        """The tensor with the largest relative error."""
        return max(self.tensors, key=lambda tensor: tensor.error, default=None)


def verify(
    folder: str | Path,
    source: str | Path | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_download: OnDownload | None = None,
) -> Verification:
    """Verify the converted checkpoint in `folder`.

    Files must have the hashes they were written with. Names, shapes and index must fit config.json. All
    numbers must be finite. With a source, config.json must describe the same model, each tensor must be the
    source's up to the error of its format, and the predictions of both on a short text are compared.

    Args:
        folder: The converted checkpoint.
        source: What it was converted from, as for `convert`. None checks the files alone.
        on_progress: Called with a `Progress` for each chunk.
        on_download: Called with the bytes downloaded and the bytes there are.

    Returns:
        The measured errors.

    Raises:
        ConversionError: The checkpoint has a fault, which the message names.
        CheckpointError: A file of the checkpoint or of its source is missing or damaged.
        ConfigError: A config.json cannot be used.
    """
    check_type("folder", folder, PATHS, "a path")
    check_type("source", source, (*PATHS, type(None)), "a name or path")
    check_callback("on_progress", on_progress)
    check_callback("on_download", on_download)
    converted = open_folder(Path(folder).expanduser())
    changed = changed_files(converted.path)
    faults = [f"{name} {fault}" for name, fault in (changed or {}).items()] + _index_faults(converted.path)
    if source is None:
        _refuse(converted.path, faults or list(_not_finite(converted, on_progress)))
        return Verification(has_checksums=changed is not None)
    original = open_source(source, on_download)
    faults += _config_faults(converted.config, original.config)
    _refuse(converted.path, faults if "config.json" in " ".join(faults) else [])
    tensors = _compare_all(converted, original, on_progress)
    _refuse(converted.path, faults + [f"{tensor.name} {tensor.fault}" for tensor in tensors if tensor.fault])
    return Verification(
        tensors=tensors,
        probe=run_probe(converted, original, on_progress),
        has_checksums=changed is not None,
    )


def _compare_all(
    converted: SourceCheckpoint, source: SourceCheckpoint, on_progress: OnProgress | None
) -> tuple[TensorCheck, ...]:
    """Compare each parameter of the model with its source."""
    pairs = list(zip(_parameters(converted, source.config), _parameters(source, source.config), strict=True))
    meter = Meter(CHECKING, sum(theirs.num_bytes for _, theirs in pairs), on_progress)
    return tuple(compare(ours, theirs, partial(meter.advance, ours.name)) for ours, theirs in pairs)


def run_probe(
    converted: SourceCheckpoint, source: SourceCheckpoint, on_progress: OnProgress | None = None
) -> Probe:
    """Compare the predictions of both on a short text."""
    tensors = _parameters(converted, converted.config) + _parameters(source, source.config)
    meter = Meter(PROBING, sum(tensor.num_bytes for tensor in tensors), on_progress)
    on_bytes = partial(meter.advance, "")
    result = probe(converted.tensors, source.tensors, source.config, converted.path, on_bytes)
    meter.finish()
    return result


def _parameters(checkpoint: SourceCheckpoint, config: ModelConfig) -> list[SourceTensor]:
    """The tensors of the parameters of the model with `config`, in their order."""
    names = parameter_shapes(build_model(replace(config, quantization=None)), mx.float32)
    return [parameter_tensor(name, checkpoint.tensors, checkpoint.config.num_experts) for name in names]


def _not_finite(checkpoint: SourceCheckpoint, on_progress: OnProgress | None) -> Iterable[str]:
    tensors = checkpoint.tensors.values()
    meter = Meter(CHECKING, sum(tensor.num_bytes for tensor in tensors), on_progress)
    for tensor in tensors:
        if not all(is_finite(tensor.read(*chunk)) for chunk in row_chunks(tensor)):
            yield f"{tensor.name} holds NaN or infinity"
        meter.advance(tensor.name, tensor.num_bytes)


def _index_faults(folder: Path) -> list[str]:
    """The index must state the size of the weights in the files."""
    if not (folder / INDEX).exists():
        return []
    size = sum(tensor.num_bytes for tensor in stored_tensors(folder).values())
    metadata = read_json(folder / INDEX).get("metadata") or {}
    if metadata.get("total_size", size) != size:
        return [f"{INDEX} says {metadata['total_size']} bytes, the files hold {size}"]
    return []


def _config_faults(converted: ModelConfig, source: ModelConfig) -> list[str]:
    """Both must describe the same model, apart from the quantization."""
    ours, theirs = (replace(config, quantization=None) for config in (converted, source))
    names = [field.name for field in fields(ours) if getattr(ours, field.name) != getattr(theirs, field.name)]
    return [
        f"config.json has {name} {getattr(ours, name)}, its source {getattr(theirs, name)}" for name in names
    ]


def _refuse(folder: Path, faults: list[str]) -> None:
    if faults:
        count = f"{len(faults)} faults: " if len(faults) > 1 else ""
        raise ConversionError(f"{folder} is faulty: {count}{few(faults)}; convert it again")
