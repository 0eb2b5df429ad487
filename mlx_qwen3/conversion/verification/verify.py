"""Is a converted checkpoint what its source says? Files, headers, every tensor, and predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import mlx.core as mx

from mlx_qwen3.checkpoint.hub import OnDownload
from mlx_qwen3.checkpoint.safetensors_files import INDEX, few, stored_tensors
from mlx_qwen3.checkpoint.validation import build_model, parameter_shapes
from mlx_qwen3.conversion.checksums import changed_files
from mlx_qwen3.conversion.progress import CHECKING, PROBING, Meter, OnProgress
from mlx_qwen3.conversion.source.open import Original, open_folder, open_original
from mlx_qwen3.conversion.source.tensors import Source, parameter
from mlx_qwen3.conversion.verification.compare import TensorCheck, compare
from mlx_qwen3.conversion.verification.probe import Probe, probe
from mlx_qwen3.conversion.write.step import read_rows
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import ModelConfig, read_json


@dataclass(frozen=True)
class Verification:
    """What was found of a checkpoint that is sound.

    tensors: each beside its source; empty without one. probe: predictions beside the source's, None
    where there was none to compare with. has_checksums: whether files had hashes to be compared with.
    """

    tensors: tuple[TensorCheck, ...] = ()
    probe: Probe | None = None
    has_checksums: bool = False

    @property
    def error(self) -> float:
        """Relative error of all weights taken together."""
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
    """Check the converted checkpoint in `folder`, against its `source` if that is given.

    Files must have the hashes they were written with, names, shapes and index must fit config.json, and
    all numbers must be finite. With a source, config.json must describe the same model, every tensor
    must be the source's within what its format allows, and a short text goes through both.
    Raises ConversionError naming what is wrong, CheckpointError, ConfigError.
    """
    made = open_folder(Path(folder).expanduser())
    changed = changed_files(made.path)
    faults = [f"{name} {what}" for name, what in (changed or {}).items()] + _index_faults(made.path)
    if source is None:
        _refuse(made.path, faults or list(_not_finite(made, on_progress)))
        return Verification(has_checksums=changed is not None)
    original = open_original(source, on_download)
    faults += _config_faults(made.config, original.config)
    _refuse(made.path, faults if "config.json" in " ".join(faults) else [])
    tensors = compare_all(made, original, on_progress)
    _refuse(made.path, faults + [f"{tensor.name} {tensor.fault}" for tensor in tensors if tensor.fault])
    return Verification(
        tensors=tensors,
        probe=run_probe(made, original, on_progress),
        has_checksums=changed is not None,
    )


def compare_all(
    made: Original, original: Original, on_progress: OnProgress | None = None
) -> tuple[TensorCheck, ...]:
    """Every parameter of the model, as made and as in its source."""
    pairs = [
        (parameter(name, made.sources, made.config.num_experts), _parameter(name, original))
        for name in _names(original.config)
    ]
    meter = Meter(CHECKING, sum(source.num_bytes for _, source in pairs), on_progress)
    return tuple(compare(ours, theirs, partial(meter.advance, ours.name)) for ours, theirs in pairs)


def run_probe(made: Original, original: Original, on_progress: OnProgress | None = None) -> Probe:
    """A short text through both."""
    sources = [_parameter(name, side) for side in (made, original) for name in _names(side.config)]
    meter = Meter(PROBING, sum(source.num_bytes for source in sources), on_progress)
    result = probe(made.sources, original.sources, original.config, made.path, partial(meter.advance, ""))
    meter.finish()
    return result


def _names(config: ModelConfig) -> Iterable[str]:
    return parameter_shapes(build_model(replace(config, quantization=None)), mx.float32)


def _parameter(name: str, original: Original) -> Source:
    return parameter(name, original.sources, original.config.num_experts)


def _not_finite(made: Original, on_progress: OnProgress | None) -> Iterable[str]:
    meter = Meter(CHECKING, sum(source.num_bytes for source in made.sources.values()), on_progress)
    for source in made.sources.values():
        if not all(mx.isfinite(rows).all().item() for rows in read_rows(source)):
            yield f"{source.name} holds NaN or infinity"
        meter.advance(source.name, source.num_bytes)


def _index_faults(folder: Path) -> list[str]:
    """The index must add up to what the files hold."""
    if not (folder / INDEX).exists():
        return []
    size = sum(tensor.num_bytes for tensor in stored_tensors(folder).values())
    metadata = read_json(folder / INDEX).get("metadata") or {}
    if metadata.get("total_size", size) != size:
        return [f"{INDEX} says {metadata['total_size']} bytes, the files hold {size}"]
    return []


def _config_faults(made: ModelConfig, original: ModelConfig) -> list[str]:
    """Both must describe the same model, whatever the form of its weights."""
    ours, theirs = (replace(config, quantization=None) for config in (made, original))
    names = [field.name for field in fields(ours) if getattr(ours, field.name) != getattr(theirs, field.name)]
    return [
        f"config.json has {name} {getattr(ours, name)}, its source {getattr(theirs, name)}" for name in names
    ]


def _refuse(folder: Path, faults: list[str]) -> None:
    if faults:
        count = f"{len(faults)} faults: " if len(faults) > 1 else ""
        raise ConversionError(f"{folder} is not sound: {count}{few(faults)}; convert it again")
