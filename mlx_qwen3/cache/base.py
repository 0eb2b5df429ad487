"""Cache: the KV cache of one layer, as attention uses it.

It is mlx-lm's protocol with a few methods more, so our caches work in its models and its models in ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import mlx.core as mx

from mlx_qwen3.cache.rows import Rows
from mlx_qwen3.errors import CacheError


class Cache(Protocol):
    """Keys and values of one layer.

    B batch, H key/value heads, L new tokens, S stored tokens, D head size.
    """

    @property
    def offset(self) -> int | mx.array:
        """The position to rotate the next token for. Reading it changes nothing."""
        ...

    @property
    def tokens(self) -> int:
        """How many tokens were written, less those trimmed."""
        ...

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D), keys already rotated; return all rows the L queries may see.

        Rows are arrays (B, H, S + L, D), or QuantizedRows. Moves `offset` on by L; a rotating cache may
        then lower all positions together. Raises CacheError if the rows cannot be stored.
        """
        ...

    def make_mask(self, length: int, return_array: bool, window_size: int | None) -> mx.array | str | None:
        """The mask for `length` new tokens, to be made before they are appended.

        None if nothing is masked; "causal" if plain causality is enough, or an array even then if
        `return_array`. Otherwise a boolean array (L, S + L), true where a query may see a key, in the order
        of the rows that `update_and_fetch` returns.
        """
        ...

    @property
    def state(self) -> Any:
        """The content, as a tree of arrays and numbers; setting it replaces the content."""
        ...

    @state.setter
    def state(self, value: Any) -> None: ...

    @property
    def meta_state(self) -> Any:
        """What `state` leaves out, as strings."""
        ...

    @meta_state.setter
    def meta_state(self, value: Any) -> None: ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        ...

    def is_trimmable(self) -> bool:
        """Whether `trim` can remove any number of tokens."""
        ...

    def trim(self, n: int) -> int:
        """Remove the latest min(n, offset) tokens, or none if `max_trim` is less. Returns how many."""
        ...

    def max_trim(self) -> int:
        """How many of the latest tokens `trim` can remove."""
        ...

    def keep_for_rollback(self, tokens: int) -> int:
        """From now on, be able to trim at least the latest `tokens` tokens; 0 ends that.

        Returns how many it can promise: fewer if the cache holds fewer.
        """
        ...

    def copy(self) -> Self:
        """A cache with the same content. The two share memory until one of them is written to."""
        ...

    def detach(self) -> None:
        """Copy the rows into memory of the cache's own, which it shares with no other."""
        ...


def roll_back(cache: Sequence[Cache], tokens: int) -> None:
    """Remove the latest `tokens` tokens from every layer. Raises CacheError if one cannot."""
    if tokens == 0:
        return
    for layer in cache:
        if layer.trim(tokens) != tokens:
            raise CacheError(f"cannot roll back {tokens} tokens of a cache of {layer.tokens}")
