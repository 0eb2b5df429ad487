"""What mlx-lm asks of caches beyond the protocol of base.py: to be joined to a batch, and a window's size.

mlx-lm's batches (`batch_generate`, its server, its evaluation) pad sequences to one length. Its own batched
caches do that; ours have its states, so that they can be handed over. Our own engine does not come here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mlx_qwen3.cache.base import Cache


def merge_full(caches: Sequence[Cache]) -> Any:
    """Full caches, one a sequence, as mlx-lm's BatchKVCache."""
    from mlx_lm.models.cache import BatchKVCache

    return BatchKVCache.merge(caches)


def merge_windows(caches: Sequence[Cache]) -> Any:
    """Windows, one a sequence, as mlx-lm's BatchRotatingKVCache.

    It keeps the latest tokens only: the first ones (attention sinks) go as those of mlx-lm's windows do.
    """
    from mlx_lm.models.cache import BatchRotatingKVCache, RotatingKVCache

    return BatchRotatingKVCache.merge([RotatingKVCache.from_state(cache.state) for cache in caches])


def requested_window() -> int | None:
    """The `max_kv_size` of mlx-lm's `make_prompt_cache`, if it called the method that calls this.

    It does not pass the option on to a model that makes its own cache, so that a window asked for would not
    come, without a word. The option is read where mlx-lm has it: in the frame of the call.
    """
    caller = sys._getframe(2)
    if caller.f_globals.get("__name__") != "mlx_lm.models.cache":
        return None
    size = caller.f_locals.get("max_kv_size")
    return size if isinstance(size, int) else None
