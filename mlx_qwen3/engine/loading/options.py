"""Checks the arguments of Engine before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from mlx_qwen3.distributed.plan import check_mode
from mlx_qwen3.engine.loading.adapters import Adapters
from mlx_qwen3.errors import CacheError, EngineError

SMALLEST_WINDOW = 64


def check_options(
    model: object,
    *,
    context: object,
    max_kv_size: object,
    kv_bits: object,
    draft_model: object,
    unload_after: object,
    distributed: object,
    adapter: object,
    adapters: object,
    models_dir: object,
    revision: object,
    **_: object,
) -> None:
    """Raise EngineError or CacheError for an argument that cannot be."""
    if not isinstance(model, str | Path):
        raise EngineError(f"model must be a name or a folder, not {model!r}")
    for name, value in (("context", context), ("max_kv_size", max_kv_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise CacheError(f"{name} must be a number of tokens, not {value!r}")
    if isinstance(max_kv_size, int) and max_kv_size < SMALLEST_WINDOW:
        raise CacheError(f"max_kv_size must be {SMALLEST_WINDOW} or more, not {max_kv_size}")
    if kv_bits not in (None, 4, 8) or isinstance(kv_bits, bool):
        raise CacheError(f"kv_bits must be 4 or 8, not {kv_bits!r}")
    is_number = isinstance(unload_after, int | float) and not isinstance(unload_after, bool)
    if unload_after is not None and not (is_number and unload_after > 0):  # type: ignore[operator]
        raise EngineError(f"unload_after must be a number of seconds, not {unload_after!r}")
    if distributed is not None:
        check_mode(distributed)
        if unload_after is not None:
            raise EngineError("unload_after cannot be used over several machines; leave it out")
        if models_dir is not None or revision is not None:
            raise EngineError("models_dir and revision cannot be used over several machines; leave them out")
    if models_dir is not None and not isinstance(models_dir, str | Path):
        raise EngineError(f"models_dir must be a folder or None, not {models_dir!r}")
    if revision is not None and not isinstance(revision, str):
        raise EngineError(f"revision must be a name or None, not {revision!r}")
    Adapters(adapter, adapters)
    if draft_model is not None and not isinstance(draft_model, str | Path):
        raise EngineError(f"draft_model must be a name, a folder or None, not {draft_model!r}")
