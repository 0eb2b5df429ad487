"""Reads the folder of an adapter, as mlx-lm or PEFT saves it. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_qwen3.adapters import mlx_lm_format, peft_format
from mlx_qwen3.adapters.adapter import Adapter, LowRank
from mlx_qwen3.backend.safetensors_io import read_header
from mlx_qwen3.errors import CheckpointError, one_line
from mlx_qwen3.files import read_json_object

CONFIG = "adapter_config.json"
UNFINISHED_TRAINING = "training_state.safetensors"  # of our own fine-tuning
MAX_CONFIG_BYTES = 2**22
FLOATS = ("F32", "F16", "BF16")
MAX_TENSORS = 2**16


def read_adapter(path: str | Path) -> Adapter:
    """The adapter in the folder `path`.

    Raises:
        CheckpointError: It is not an adapter, is incomplete, or is of a kind that cannot be used; the
            message names the file and the field or tensor.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; an adapter is a folder with {CONFIG}")
    if (folder / UNFINISHED_TRAINING).is_file() and not (folder / mlx_lm_format.WEIGHTS).is_file():
        raise CheckpointError(f"{folder} is a training that has not ended; resume it, then it is an adapter")
    advice = "name the folder that the adapter was saved in"
    config = read_json_object(folder / CONFIG, CheckpointError, advice, MAX_CONFIG_BYTES)
    form = peft_format if "peft_type" in config else mlx_lm_format
    file = folder / form.WEIGHTS
    tensors = _tensors(file)
    updates = form.updates(folder, config, tensors)
    for name, update in updates.items():
        _check(file, name, update)
        mx.eval(update.a, update.b)  # they may be used by other threads
    return Adapter(folder, updates, _digest(updates))


def _tensors(file: Path) -> Mapping[str, mx.array]:
    """All tensors of the file. Raises CheckpointError."""
    if not file.is_file():
        pickled = sorted(entry.name for entry in file.parent.glob("*.bin"))
        hint = f"; {pickled[0]} is pickled, which can run code: save it as .safetensors" if pickled else ""
        raise CheckpointError(f"{file} is missing{hint}")
    try:
        entries = read_header(file).tensors
        if not entries or len(entries) > MAX_TENSORS:
            raise ValueError(f"it holds {len(entries):,} tensors")
        for name, entry in entries.items():
            if entry.dtype not in FLOATS:
                raise CheckpointError(
                    f"{file}: {one_line(name, 80)} is stored as {entry.dtype}, not as numbers"
                )
        loaded: Any = mx.load(str(file))
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} is damaged or cut off ({one_line(error, 100)}); copy it again"
        ) from None
    return {name: loaded[name] for name in entries}


def _check(file: Path, name: str, update: LowRank) -> None:
    """Raise CheckpointError unless the matrices of an update fit each other and are finite."""
    if update.a.ndim not in (2, 3) or update.a.ndim != update.b.ndim:
        raise CheckpointError(f"{file}: A and B of {name} have {update.a.ndim} and {update.b.ndim} axes")
    if update.a.shape[-2] != update.b.shape[-1] or update.a.shape[:-2] != update.b.shape[:-2]:
        raise CheckpointError(
            f"{file}: A {list(update.a.shape)} and B {list(update.b.shape)} of {name} do not fit each other"
        )
    if update.magnitude is not None and update.magnitude.shape != update.b.shape[:-1]:
        raise CheckpointError(f"{file}: the magnitudes of {name} have shape {list(update.magnitude.shape)}")
    arrays = [update.a, update.b, *([] if update.magnitude is None else [update.magnitude])]
    if not all(bool(mx.isfinite(array).all().item()) for array in arrays):
        raise CheckpointError(f"{file}: the update of {name} holds NaN or infinity")


def _digest(updates: Mapping[str, LowRank]) -> str:
    digest = blake2b(digest_size=16)
    for name, update in sorted(updates.items()):
        digest.update(json.dumps([name, update.scale]).encode())
        for array in (update.a, update.b, update.magnitude):
            if array is not None:
                digest.update(np.array(array.astype(mx.float32)).tobytes())
    return digest.hexdigest()
