"""KVCache: keeps the keys and values of every token."""

from __future__ import annotations

import mlx.core as mx


class KVCache:
    """Keeps every row, in buffers that grow by doubling so that appending costs no copy on average."""

    # The first buffer, and the unit buffers are rounded to, in tokens.
    step = 256

    def __init__(self) -> None:
        self.keys: mx.array | None = None  # (B, H, capacity, D)
        self.values: mx.array | None = None
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append keys and values (B, H, L, D); return every row so far (B, H, S + L, D)."""
        start, self.offset = self.offset, self.offset + keys.shape[2]
        self.keys = _write(self._room(self.keys, keys, start), keys, start)
        self.values = _write(self._room(self.values, values, start), values, start)
        return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]

    def _room(self, buffer: mx.array | None, rows: mx.array, start: int) -> mx.array:
        """`buffer` with room for `rows` at `start`; what lies beyond `start` is not kept."""
        if buffer is not None and buffer.shape[2] >= self.offset:
            return buffer
        # Growing by a quarter keeps copying rare without holding twice what is needed.
        capacity = max(self.offset, start + start // 4)
        capacity = -(-capacity // self.step) * self.step
        B, H, _, D = rows.shape
        if buffer is None:
            return mx.zeros((B, H, capacity, D), rows.dtype)
        empty = mx.zeros((B, H, capacity - start, D), buffer.dtype)
        return mx.concatenate([buffer[..., :start, :], empty], axis=2)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The mask for `length` new rows; `window_size` limits how far back a row looks."""
        if window_size is None and not return_array:
            return "causal" if length > 1 else None
        if window_size is None and length == 1:
            return None
        queries = mx.arange(self.offset, self.offset + length)[:, None]
        keys = mx.arange(self.offset + length)[None]
        mask = queries >= keys
        return mask if window_size is None else mask & (queries < keys + window_size)

    @property
    def state(self) -> tuple[mx.array, mx.array] | list[mx.array]:
        """Keys and values held, each (B, H, offset, D); an empty list before the first token."""
        if self.keys is None or self.values is None:
            return []
        return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]

    @state.setter
    def state(self, value: tuple[mx.array, mx.array] | list[mx.array]) -> None:
        self.keys, self.values = value if value else (None, None)
        self.offset = 0 if self.keys is None else self.keys.shape[2]

    @property
    def meta_state(self) -> str:
        """Nothing: `state` says it all."""
        return ""

    @meta_state.setter
    def meta_state(self, value: str) -> None:
        if value:
            raise ValueError(f"a KVCache has no meta state, got {value!r}")

    @classmethod
    def from_state(cls, state: tuple[mx.array, mx.array] | list[mx.array]) -> KVCache:
        """A cache holding `state`, as saved; called by `mlx_lm.models.cache.load_prompt_cache`."""
        cache = cls()
        cache.state = state
        return cache

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in (self.keys, self.values) if buffer is not None)

    def empty(self) -> bool:
        return self.keys is None

    def size(self) -> int:
        """Tokens held."""
        return self.offset

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        n = max(0, min(n, self.offset))
        self.offset -= n
        return n


def _write(buffer: mx.array, rows: mx.array, start: int) -> mx.array:
    """`buffer` with `rows` at `start`: in place where nothing else holds it."""
    buffer[..., start : start + rows.shape[2], :] = rows
    return buffer
