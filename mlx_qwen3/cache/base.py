"""The contract between a model's attention and a cache. mlx-lm's protocol, so that both fit both."""

from __future__ import annotations

from typing import Any, Protocol

import mlx.core as mx

from mlx_qwen3.cache.rows import Rows


class Cache(Protocol):
    """The keys and values of one layer. B batch, H heads, L new tokens, S tokens held, D head size."""

    @property
    def offset(self) -> int | mx.array:
        """The position that the next token is rotated for; (B,) where texts of a batch differ.

        Reading it changes nothing.
        """
        ...

    @property
    def tokens(self) -> int:
        """How many tokens have been seen, taken-back ones not counted."""
        ...

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D), already rotated; return all rows the L may look at.

        Rows are arrays (B, H, S + L, D), or QuantizedRows. Mutates the cache and moves `offset` on
        by L; a rotating cache may then move all positions back together. Raises CacheError if the
        rows cannot be stored.
        """
        ...

    def make_mask(self, length: int, return_array: bool, window_size: int | None) -> mx.array | str | None:
        """The mask for `length` new rows, asked before they are appended.

        None where nothing is hidden, "causal" where plain causality is enough (an array even then
        if `return_array`), else a boolean array (L, S + L), true where a row may look, its columns
        in the order of the rows that `update_and_fetch` returns.
        """
        ...

    @property
    def state(self) -> Any:
        """The arrays held, as a tree; setting it replaces the cache's content."""
        ...

    @state.setter
    def state(self, value: Any) -> None: ...

    @property
    def meta_state(self) -> Any:
        """What `state` does not say, as strings."""
        ...

    @meta_state.setter
    def meta_state(self, value: Any) -> None: ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        ...

    def is_trimmable(self) -> bool:
        """Whether `trim` can take back any number of tokens."""
        ...

    def keep_undo(self, rows: int) -> int:
        """From now on, be able to take back the latest `rows` tokens; 0 ends that.

        Returns how many it will be, fewer where the cache holds fewer.
        """
        ...

    def undoable(self) -> int:
        """How many of the latest tokens `trim` can take back."""
        ...

    def trim(self, n: int) -> int:
        """Forget the latest min(n, offset) tokens, or none if they are more than `undoable`.

        Returns how many. Later writes take their place.
        """
        ...
