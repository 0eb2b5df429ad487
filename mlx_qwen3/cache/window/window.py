"""Window: holds the first tokens and the latest, writes them, takes them back, and says who sees what.

Which slot holds which token: ring.py. What becomes of the first tokens as the others move away from
them: first_keys.py.

A token that pushed out another can be taken back only while the row it overwrote is remembered, which
`keep_undo` asks for: speculative decoding writes tokens that may not come true.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer
from mlx_qwen3.cache.kv import StoredCache
from mlx_qwen3.cache.rows import Rows, copied, each, join, length_of, take
from mlx_qwen3.cache.window.attention_sinks import FirstKeys, Rotation
from mlx_qwen3.cache.window.ring import Ring
from mlx_qwen3.cache.window.undo import Overwritten, Undo
from mlx_qwen3.errors import CacheError


class Window(StoredCache):
    """Holds the first `keep` tokens and the latest `max_size - keep`. Room is taken at the first write.

    buffers: for keys and for values. stride: how far the ring moves before the first keys are moved
    after it. rotation: the model's rotary embedding; without it the first tokens stay where they were,
    and grow ever more distant. Raises CacheError if `keep` leaves no room for others.
    """

    def __init__(
        self, buffers: tuple[Buffer, Buffer], max_size: int, keep: int, stride: int, rotation: Rotation | None
    ) -> None:
        if not 0 <= keep < max_size:
            raise CacheError(f"a window of {max_size} tokens cannot keep the first {keep}; keep fewer")
        self._keys, self._values = buffers
        self.max_size, self.keep = max_size, keep
        self.offset = 0
        self._ring = Ring(keep, max_size)
        self._first = FirstKeys(self._keys, keep, max_size, stride, rotation)
        self._undo: Undo | None = None

    @property
    def rotation(self) -> Rotation | None:
        """What the first tokens are moved along with."""
        return self._first.rotation

    @rotation.setter
    def rotation(self, value: Rotation | None) -> None:
        self._first.rotation = value

    def size(self) -> int:
        """Tokens held."""
        return min(self.offset, self.max_size)

    def _room(self) -> int:
        return self.max_size

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D), rotated for positions from `offset` on.

        Returns every row that one of the new ones may see, in the order of `make_mask`.
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

    def _append(self, new: tuple[Rows, Rows], start: int) -> tuple[Rows, Rows]:
        """Rows that fit, or one that takes the oldest's slot: written, then all is returned."""
        self._first.follow(start)
        slot = start
        if self.offset > self.max_size:
            slot = self._ring.slot(start)
            new = self._remember(new, start)
        self._keys.write(new[0], slot)
        self._values.write(new[1], slot)
        held = self.size()
        return self._keys.read(0, held), self._values.read(0, held)

    def _append_chunk(self, new: tuple[Rows, Rows], start: int, length: int) -> tuple[Rows, Rows]:
        """Rows that push out others, which the first of them still see."""
        self._first.move_back()
        held, kept = min(start, self.max_size), min(start, self.keep)
        lead = self.keep - kept  # how many of the new rows are first ones
        shifts = self._first.shifts(start, length)
        fetched = []
        stored = self._remember(new, start)
        for buffer, rows, written in zip(self._both, new, stored, strict=True):
            first = join([buffer.read(0, kept), take(rows, 0, lead)])
            copies = [self._first.moved(first, by) if buffer is self._keys else first for by in shifts]
            fetched.append(join([*copies, buffer.read(kept, held), take(rows, lead, length)]))
            self._ring.write(buffer, written, start)
        return fetched[0], fetched[1]

    def _remember(self, new: tuple[Rows, Rows], start: int) -> tuple[Rows, Rows]:
        """Keep what `new` rows from `start` on will overwrite. Returns them, to be written only then."""
        undo, length = self._undo, length_of(new[0])
        if undo is None:
            return new
        if length > undo.limit:
            undo.clear()
            return new
        # Made before the write, which then need not copy the buffer.
        old = [copied(self._ring.read(buffer, start, length)) for buffer in self._both]
        undo.record(Overwritten(start, start + length, old[0], old[1]))
        keys, values = (each(after, rows, copy) for rows, copy in zip(new, old, strict=True))
        return keys, values

    @property
    def _both(self) -> tuple[Buffer, Buffer]:
        return self._keys, self._values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The mask for `length` new rows over what `update_and_fetch` will return.

        Raises CacheError for a `window_size`: the window is the cache's own.
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
        """(L, rows): which of the rows `_append_chunk` returns each of the new ones sees."""
        masks = [self._ring.mask(self.offset, length)]
        if self.keep:
            masks.insert(0, self._first.mask(self.offset, length))
        return mx.concatenate(masks, axis=1)

    def is_trimmable(self) -> bool:
        """Whether any number of tokens can be taken back: until the first was pushed out."""
        return self.offset <= self.max_size

    def keep_undo(self, rows: int) -> int:
        """From now on, remember what up to `rows` of the latest tokens push out; 0 ends that.

        Returns how many tokens it will be: no more than the ring has slots.
        """
        rows = min(rows, self._ring.size)
        self._undo = Undo(rows) if rows else None
        return rows

    def undoable(self) -> int:
        """How many of the latest tokens can be taken back."""
        if self.is_trimmable():
            return self.offset
        start = None if self._undo is None else self._undo.start
        if start is None:
            return 0
        return self.offset if start <= self.max_size else self.offset - start

    def trim(self, n: int) -> int:
        """Forget the latest min(n, offset) tokens, or none if they cannot be. Returns how many."""
        n = max(0, min(n, self.offset))
        if n > self.undoable():
            return 0
        self.offset -= n
        for write in self._undo.take_back(self.offset) if self._undo is not None else ():
            self._ring.write(self._keys, write.keys, write.start)
            self._ring.write(self._values, write.values, write.start)
        return n


def after(new: mx.array, copy: mx.array) -> mx.array:
    """`new`, which is not there before `copy` is."""
    waiting: list[mx.array] = mx.depends([new], [copy])
    return waiting[0]
