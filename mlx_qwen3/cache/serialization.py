"""KV caches on disk: safetensors files in mlx-lm's layout, so that either program loads the other's.

Arrays are written one after the other, so a save needs extra memory for the rows of one layer only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_qwen3.backend.safetensors_io import TensorSpec, encode_header, read_header
from mlx_qwen3.cache.base import Cache
from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache
from mlx_qwen3.cache.saved_state import State, check_state
from mlx_qwen3.cache.window.rotating import QuantizedRotatingKVCache, RotatingKVCache
from mlx_qwen3.errors import CacheError
from mlx_qwen3.files import replacing

CLASSES: dict[str, type[KVCache | RotatingKVCache]] = {
    cls.__name__: cls for cls in (KVCache, QuantizedKVCache, RotatingKVCache, QuantizedRotatingKVCache)
}

UNREADABLE = (KeyError, ValueError, TypeError, IndexError, RuntimeError, AttributeError)
"""What reading a file of another form raises. RecursionError is a RuntimeError."""


def save_prompt_cache(
    path: str | Path, cache: Sequence[Cache], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model's KV cache, one entry per layer, and `metadata` to `path`.

    A killed save leaves the old file as it was. Raises CacheError if the file cannot be written, or for a
    cache of another class than the four above.
    """
    names = [type(layer).__name__ for layer in cache]
    if unknown := [name for name in names if name not in CLASSES]:
        raise CacheError(f"a {unknown[0]} cannot be saved; it would have to be one of {', '.join(CLASSES)}")
    values = tree_flatten([layer.state for layer in cache])
    # Entries of the states that are no arrays: (key, "none" or "scalar"). mlx-lm's list starts with "".
    scalars = [""] + [
        (key, "none" if value is None else "scalar")
        for key, value in values
        if not isinstance(value, mx.array)
    ]
    arrays = {key: _as_array(value) for key, value in values}
    header = dict(tree_flatten([dict(metadata or {}), names, scalars]))
    try:
        with replacing(Path(path)) as file:
            _write(file, arrays, header)
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error.strerror or error}") from None


def load_prompt_cache(
    path: str | Path, check: Callable[[list[str], list[State]], object] | None = None
) -> tuple[list[KVCache | RotatingKVCache], dict[str, str]]:
    """The KV cache saved at `path`, one entry per layer, and the metadata saved with it.

    A rotating cache has no `rotation` yet: set it to its layer's `self_attn.rope`, as PromptCache does.

    Args:
        path: A file that `save_prompt_cache` or mlx-lm wrote.
        check: Called with the layers' classes and states before caches are made of them; raises ValueError
            or KeyError to refuse them.

    Raises:
        CacheError: The file is missing, cut off or no saved cache.
    """
    try:
        header = _read_file_metadata(path)
        arrays: dict[str, mx.array] = mx.load(str(path), format="safetensors")  # type: ignore[assignment]
        metadata, names, scalars = tree_unflatten(list(header.items()))
        values: dict[str, Any] = dict(arrays)
        for key, kind in scalars[1:]:
            values[key] = None if kind == "none" else arrays[key].item()
        raw = tree_unflatten(list(values.items()))
        states = [check_state(name, state) for name, state in zip(names, raw, strict=True) if CLASSES[name]]
        if check is not None:
            check(names, states)
        cache = [CLASSES[name].from_state(tuple(state)) for name, state in zip(names, raw, strict=True)]
        mx.eval([layer.state for layer in cache])
    except (
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        RuntimeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CacheError(f"{path} holds no cache of this model ({error})") from None
    return cache, dict(metadata or {})


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata saved with a KV cache. Raises CacheError for a file that is missing or cut off."""
    header = _read_file_metadata(path)
    try:
        metadata = tree_unflatten(list(header.items()) or [("0", "")])
        return {str(name): str(value) for name, value in (metadata[0] or {}).items()}
    except UNREADABLE as error:
        raise CacheError(f"{path} is no saved cache ({error})") from None


def _read_file_metadata(path: str | Path) -> dict[str, str]:
    """The file's metadata: that of the cache (keys "0...."), the layers' classes and the scalars."""
    try:
        return read_header(path).metadata
    except FileNotFoundError:
        raise CacheError(f"there is no saved cache {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CacheError(f"{path} is damaged or cut off ({error})") from None


def _as_array(value: Any) -> mx.array:
    if isinstance(value, mx.array):
        return value
    return mx.array([], mx.float32) if value is None else mx.array(value)


def _write(file: BinaryIO, arrays: Mapping[str, mx.array], metadata: Mapping[str, str]) -> None:
    tensors = [TensorSpec(name, array.dtype, array.shape) for name, array in arrays.items()]
    header, _ = encode_header(tensors, metadata)
    file.write(header)
    for array in arrays.values():
        if array.size:
            # Python's buffer interface has no bfloat16, so the bytes are passed as integers.
            integers = mx.contiguous(array).view(mx.uint32 if array.itemsize == 4 else mx.uint16)
            file.write(memoryview(integers))  # type: ignore[arg-type]
