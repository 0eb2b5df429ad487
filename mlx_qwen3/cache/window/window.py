"""Window: a sliding-window KV cache of the first tokens and the latest, which masks, writes and trims.

ring.py maps tokens to slots, attention_sinks.py shifts the first keys as the window moves.

A token that overwrote another can be trimmed only while the overwritten row is logged. Speculative decoding
asks for this with `keep_for_rollback`, as it writes drafted tokens that may be rejected.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer
from mlx_qwen3.cache.kv import StoredCache
from mlx_qwen3.cache.rows import Rows, copied, join, length_of, map_arrays, take
from mlx_qwen3.cache.window.attention_sinks import AttentionSinks, Rotation
from mlx_qwen3.cache.window.ring import Ring
from mlx_qwen3.cache.window.rollback_log import OverwrittenRows, RollbackLog
from mlx_qwen3.errors import CacheError


class Window(StoredCache):
    """Keeps the first `keep` tokens and the latest `max_size - keep`. Allocated at the first write."""

    max_size: int
    keep: int
    _ring: Ring
    _sinks: AttentionSinks
    _rollback: RollbackLog | None

    def _clear(
        self, buffers: tuple[Buffer, Buffer], max_size: int, keep: int, stride: int, rotation: Rotation | None
    ) -> None:
        """Empty the window, for rows in `buffers` (of keys, of values).

        stride: how far the ring moves before the first keys are shifted after it. rotation: the model's
        rotary embedding; without it the first keys are not shifted, and grow ever more distant. Raises
        CacheError if `keep` leaves no slot for other tokens.
        """
        if not 0 <= keep < max_size:
            raise CacheError(f"a window of {max_size} tokens cannot keep the first {keep}; keep fewer")
        self._keys, self._values = buffers
        self.max_size, self.keep = max_size, keep
        self.offset = 0
        self._ring = Ring(keep, max_size)
        self._sinks = AttentionSinks(self._keys, keep, max_size, stride, rotation)
        self._rollback = None

    @property
    def rotation(self) -> Rotation | None:
        """The rotary embedding that shifts the first keys."""
        return self._sinks.rotation

    @rotation.setter
    def rotation(self, value: Rotation | None) -> None:
        self._sinks.rotation = value

    @property
    def _buffers(self) -> tuple[Buffer, Buffer]:
        return self._keys, self._values

    def size(self) -> int:
        """Tokens held."""
        return min(self.offset, self.max_size)

    def _capacity_needed(self) -> int:
        return self.max_size

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D), keys rotated for positions from `offset` on.

        Returns every row that one of the new tokens may see, in the order of `make_mask`.
        """
        length, start = keys.shape[2], self.offset
        new = self._keys.encode(keys), self._values.encode(values)
        if self.empty():
            self._keys.reserve(self.max_size, new[0], used=0)
            self._values.reserve(self.max_size, new[1], used=0)
        self.offset += length
        if length == 1 or self.offset <= self.max_size:
            return self._append(new, start)
        return self._append_chunk(new, start, length)

    def before_token(self) -> int | None:
        """Bring the rows to where the next token sees them. Returns the slot of the one it will replace."""
        self._sinks.shift_for(self.offset)
        return self._ring.slot(self.offset) if self.offset >= self.max_size else None

    def _append(self, new: tuple[Rows, Rows], start: int) -> tuple[Rows, Rows]:
        """Write rows that fit, or a single one over the oldest. Every row held is returned."""
        self._sinks.shift_for(start)
        slot = start
        if self.offset > self.max_size:
            slot = self._ring.slot(start)
            new = self._log_overwritten(new, start)
        self._keys.write(new[0], slot)
        self._values.write(new[1], slot)
        held = self.size()
        return self._keys.read(0, held), self._values.read(0, held)

    def _append_chunk(self, new: tuple[Rows, Rows], start: int, length: int) -> tuple[Rows, Rows]:
        """Write rows over others that the first of the new tokens still see.

        Returns the first rows, once for each of their shifts; then the rows held before, then the new ones.
        """
        self._sinks.unshift()
        held, kept = min(start, self.max_size), min(start, self.keep)
        num_first = self.keep - kept  # of the new rows, those that become first rows
        shifts = self._sinks.shifts(start, length)
        fetched = []
        stored = self._log_overwritten(new, start)
        for buffer, rows, written in zip(self._buffers, new, stored, strict=True):
            first = join([buffer.read(0, kept), take(rows, 0, num_first)])
            copies = [self._sinks.shifted(first, by) if buffer is self._keys else first for by in shifts]
            fetched.append(join([*copies, buffer.read(kept, held), take(rows, num_first, length)]))
            self._ring.write(buffer, written, start)
        return fetched[0], fetched[1]

    def _log_overwritten(self, new: tuple[Rows, Rows], start: int) -> tuple[Rows, Rows]:
        """Log the rows that `new` ones, from `start` on, will overwrite. Returns the rows to write."""
        log, length = self._rollback, length_of(new[0])
        if log is None:
            return new
        if length > log.limit:
            log.clear()
            return new
        # Copied before the write, so that the write need not copy the whole buffer.
        old = [copied(self._ring.read(buffer, start, length)) for buffer in self._buffers]
        log.record(OverwrittenRows(start, start + length, old[0], old[1]))
        keys, values = (map_arrays(after, rows, copy) for rows, copy in zip(new, old, strict=True))
        return keys, values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The mask for `length` new tokens over the rows that `update_and_fetch` will return.

        Raises CacheError for a `window_size` smaller than the cache's own.
        """
        if window_size is not None and window_size < self.max_size:
            raise CacheError(f"a rotating cache has its own window of {self.max_size}, not {window_size}")
        if length == 1:
            return None
        if self.offset + length > self.max_size:
            return self._chunk_mask(length)
        if not return_array:
            return "causal"
        return mx.arange(self.offset, self.offset + length)[:, None] >= mx.arange(self.offset + length)

    def _chunk_mask(self, length: int) -> mx.array:
        """(L, rows): which of the rows of `_append_chunk` each new token sees."""
        masks = [self._ring.mask(self.offset, length)]
        if self.keep:
            masks.insert(0, self._sinks.mask(self.offset, length))
        return mx.concatenate(masks, axis=1)

    def is_trimmable(self) -> bool:
        """Whether any number of tokens can be trimmed: until the first one was overwritten."""
        return self.offset <= self.max_size

    def trim(self, n: int) -> int:
        """Remove the latest min(n, offset) tokens, or none if `max_trim` is less. Returns how many."""
        n = max(0, min(n, self.offset))
        if n > self.max_trim():
            return 0
        self.offset -= n
        if self._rollback is not None:
            for write in self._rollback.roll_back(self.offset):
                self._ring.write(self._keys, write.keys, write.start)
                self._ring.write(self._values, write.values, write.start)
        return n

    def max_trim(self) -> int:
        """How many of the latest tokens `trim` can remove."""
        if self.is_trimmable():
            return self.offset
        start = None if self._rollback is None else self._rollback.start
        if start is None:
            return 0
        return self.offset if start <= self.max_size else self.offset - start

    def keep_for_rollback(self, tokens: int) -> int:
        """From now on, log what up to `tokens` of the latest tokens overwrite; 0 ends that.

        Returns how many tokens it will be: at most the ring's size.
        """
        tokens = min(tokens, self._ring.size)
        self._rollback = RollbackLog(tokens) if tokens else None
        return tokens


def after(new: mx.array, copy: mx.array) -> mx.array:
    """`new`, to be evaluated only after `copy`."""
    waiting: list[mx.array] = mx.depends([new], [copy])
    return waiting[0]
