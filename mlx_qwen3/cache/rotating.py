"""RotatingKVCache: keeps the first tokens and the latest, in room that is set once and never grows.

The first `keep` slots hold the first tokens; the others are a ring in which a token takes the slot
of the oldest. Attention does not mind the order of rows: a key carries its position in its rotation.

Only differences of positions count in RoPE. Those among the tokens of the ring stay below its
length for ever, but the distance back to the first tokens grows without end, past anything the
model was trained on. So the first keys, kept as they came, are moved along: `stride` positions
further whenever the ring has moved that far, which leaves no token further away than the window and
a stride. The position a token is given when it comes does not depend on how the text was cut into
chunks. (Why not the other ways: docs/memory.md.)

A token that pushed out another can be taken back only while the row it overwrote is remembered, which
`keep_undo` asks for: speculative decoding writes tokens that may not come true.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

import mlx.core as mx

from mlx_qwen3.cache.buffers import Buffer, DenseBuffer, QuantizedBuffer
from mlx_qwen3.cache.kv import KVCache, QuantizedKVCache, StoredCache
from mlx_qwen3.cache.rows import Rows, each, join, length_of, take
from mlx_qwen3.cache.undo import Overwritten, Undo
from mlx_qwen3.errors import CacheError

# How far the ring moves before the first keys are moved after it.
STRIDE = 256
# Positions beyond this are counted anew from the window's, lest they outgrow the angles' precision.
LARGEST_POSITION = 32768


class Rotation(Protocol):
    """What a cache needs of a model's rotary embedding to move keys it has rotated."""

    def shift(self, x: mx.array, by: int) -> mx.array:
        """Rotated rows (B, H, L, D), each `by` positions further on (back if negative)."""
        ...


class RotatingKVCache(StoredCache):
    """Keeps the first `keep` tokens and the latest `max_size - keep`. Room is taken at the first write.

    rotation: the model's rotary embedding; without it the first tokens stay where they were, and
    grow ever more distant. Raises CacheError if `keep` leaves no room for others.
    """

    def __init__(self, max_size: int, keep: int = 4, rotation: Rotation | None = None) -> None:
        if not 0 <= keep < max_size:
            raise CacheError(f"a window of {max_size} tokens cannot keep the first {keep}; keep fewer")
        self._keys, self._values = self._buffers()
        self.max_size, self.keep, self.rotation = max_size, keep, rotation
        self.offset = 0
        self.stride = max(STRIDE, keep)
        self._moved_back = 0  # by how much positions have been counted anew
        self._turn = 0  # by how many slots the ring is turned, for that reason or another
        self._first: Rows | None = None  # the first keys as they came, while the buffer's are moved
        self._shift = 0  # by how much the buffer's are moved
        self._undo: Undo | None = None

    def _buffers(self) -> tuple[Buffer, Buffer]:
        return DenseBuffer(), DenseBuffer()

    @property
    def tokens(self) -> int:
        return self.offset + self._moved_back

    @tokens.setter
    def tokens(self, value: int) -> None:
        self._moved_back = value - self.offset

    def _room(self) -> int:
        return self.max_size

    @property
    def ring(self) -> int:
        """Slots of the ring: how many tokens a token sees beyond the first ones, itself included."""
        return self.max_size - self.keep

    def size(self) -> int:
        """Tokens held."""
        return min(self.offset, self.max_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Rows, Rows]:
        """Append keys and values (B, H, L, D), rotated for positions from `offset` on.

        Returns every row that one of the new ones may see, in the order of `make_mask`. `offset`
        moves on by L, or less when positions are counted anew.
        """
        length, start = keys.shape[2], self.offset
        new = self._keys.encode(keys), self._values.encode(values)
        if self.empty():
            self._keys.reserve(self.max_size, new[0], used=0)
            self._values.reserve(self.max_size, new[1], used=0)
        self.offset += length
        if length == 1 or self.offset <= self.max_size:
            fetched = self._append(new, start)
        else:
            fetched = self._append_chunk(new, start, length)
        if self.rotation is not None and self.offset >= max(LARGEST_POSITION, 2 * self.max_size):
            self._count_anew(self.rotation)
        return fetched

    def _append(self, new: tuple[Rows, Rows], start: int) -> tuple[Rows, Rows]:
        """Rows that fit, or one that takes the oldest's slot: written, then all is returned."""
        self._move_first(self._shift_at(start))
        slot = start
        if self.offset > self.max_size:
            slot = self._slot(start)
            new = self._remember(new, start)
        self._keys.write(new[0], slot)
        self._values.write(new[1], slot)
        held = self.size()
        return self._keys.read(0, held), self._values.read(0, held)

    def _append_chunk(self, new: tuple[Rows, Rows], start: int, length: int) -> tuple[Rows, Rows]:
        """Rows that push out others, which the first of them still see."""
        self._move_first(0)
        held, kept = min(start, self.max_size), min(start, self.keep)
        lead = self.keep - kept  # how many of the new rows are first ones
        fetched = []
        kept_new = self._remember(new, start)
        for buffer, rows, written in zip((self._keys, self._values), new, kept_new, strict=True):
            first = join([buffer.read(0, kept), take(rows, 0, lead)])
            copies = [
                self._shifted(first, shift) if buffer is self._keys else first
                for shift in self._shifts(start, length)
            ]
            fetched.append(join([*copies, buffer.read(kept, held), take(rows, lead, length)]))
            self._store(buffer, written, start)
        return fetched[0], fetched[1]

    def _store(self, buffer: Buffer, rows: Rows, start: int) -> None:
        """Write what stays of a chunk: its first tokens, and its latest around the ring."""
        length = length_of(rows)
        if start < self.keep:
            buffer.write(take(rows, 0, self.keep - start), start)
        done = max(0, self.keep - start, length - self.ring)
        while done < length:
            slot = self._slot(start + done)
            count = min(length - done, self.max_size - slot)
            buffer.write(take(rows, done, done + count), slot)
            done += count

    def _remember(self, new: tuple[Rows, Rows], start: int) -> tuple[Rows, Rows]:
        """Keep what `new` rows from `start` on will overwrite. Returns them, to be written only then."""
        undo, length = self._undo, length_of(new[0])
        if undo is None:
            return new
        if length > undo.limit:
            undo.clear()
            return new
        # Multiplied to be copies, and made before the write, which then need not copy the buffer.
        old = [each(lambda array: array * 1, self._around(buffer, start, length)) for buffer in self._both]
        undo.record(Overwritten(start, start + length, old[0], old[1]))
        keys, values = (each(after, rows, copy) for rows, copy in zip(new, old, strict=True))
        return keys, values

    def _around(self, buffer: Buffer, start: int, length: int) -> Rows:
        """The rows in the slots of the positions from `start` on, no more than the ring has."""
        slot = self._slot(start)
        before_end = min(length, self.max_size - slot)
        parts = [
            buffer.read(slot, slot + before_end),
            buffer.read(self.keep, self.keep + length - before_end),
        ]
        return join(parts)

    @property
    def _both(self) -> tuple[Buffer, Buffer]:
        return self._keys, self._values

    def _slot(self, position: int) -> int:
        """Where the ring holds the token of `position`, which is not a first one."""
        return self.keep + (position - self.keep + self._turn) % self.ring

    def _shift_at(self, position: int) -> int:
        """How far the first keys are moved for the token at `position`."""
        if self.rotation is None or self.keep == 0:
            return 0
        return max(0, position + 1 - self.max_size) // self.stride * self.stride

    def _shifts(self, start: int, length: int) -> list[int]:
        """The shifts that `length` tokens from `start` on see the first keys at."""
        if self.keep == 0:
            return []
        return list(range(self._shift_at(start), self._shift_at(start + length - 1) + 1, self.stride))

    def _shifted(self, first: Rows, shift: int) -> Rows:
        """The first keys, as they came, `shift` positions further on."""
        if shift == 0 or self.rotation is None:
            return first
        return self._keys.encode(self.rotation.shift(self._keys.decode(first), shift))

    def _move_first(self, shift: int) -> None:
        """Have the buffer hold the first keys moved by `shift`."""
        if shift == self._shift:
            return
        if self._first is None:
            # Multiplied to be a copy: a view would hold on to the whole buffer.
            self._first = each(lambda array: array * 1, self._keys.read(0, self.keep))
        self._keys.write(self._shifted(self._first, shift), 0)
        self._shift = shift
        if shift == 0:
            self._first = None

    def _count_anew(self, rotation: Rotation) -> None:
        """Move all positions back as far as the window allows, by a whole number of strides."""
        # What may be taken back must leave the ring full, or slots would change their meaning.
        spare = 0 if self._undo is None else self._undo.limit
        back = (self.offset - spare - self.max_size - 1) // self.stride * self.stride
        if back <= 0:
            return

        def moved(keys: Rows) -> Rows:
            return self._keys.encode(rotation.shift(self._keys.decode(keys), -back))

        self._keys.write(moved(self._keys.read(self.keep, self.max_size)), self.keep)
        if self._undo is not None:
            self._undo.move(-back, moved)
        self._move_first(0)
        self.offset -= back
        self._moved_back += back
        self._turn = (self._turn + back) % self.ring

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
        start = self.offset
        queries = mx.arange(start, start + length)[:, None]
        others = mx.concatenate([self._ring_positions(), mx.arange(max(start, self.keep), start + length)])
        masks = [(others <= queries) & (others > queries - self.ring)]
        if self.keep:
            shifts = mx.array(self._shifts(start, length))
            seen = mx.array([self._shift_at(position) for position in range(start, start + length)])
            chosen = mx.repeat(seen[:, None] == shifts, self.keep, axis=1)
            first = mx.tile(mx.arange(self.keep), len(shifts))
            masks.insert(0, chosen & (first <= queries))
        return mx.concatenate(masks, axis=1)

    def _ring_positions(self) -> mx.array:
        """The position of the token in each used slot of the ring, in the order of slots."""
        if self.offset <= self.max_size:
            return mx.arange(self.keep, max(self.offset, self.keep))
        slots = mx.arange(self.keep, self.max_size)
        latest = self.offset - 1
        return latest - (self._slot(latest) - slots) % self.ring

    @property
    def state(self) -> tuple[Any, ...]:
        """Keys, values, offset, keep, max_size, and the slot that is written next.

        Keys and values (B, H, size, D) are in the order of slots, or None before the first token.
        """
        return (*self._rows_held(), self.offset, self.keep, self.max_size, self._next_slot())

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, offset, keep, max_size, slot = value
        self.__init__(max_size, keep)  # type: ignore[misc]  # a state is all there is, but the rotation
        self._restore(keys, values, offset, slot)

    def _rows_held(self) -> tuple[Rows | None, Rows | None]:
        if self.empty():
            return None, None
        keys, values = self._keys.read(0, self.size()), self._values.read(0, self.size())
        if self._first is not None:  # saved are the first keys as they came
            keys = join([self._first, take(keys, self.keep, self.max_size)])
        return keys, values

    def _next_slot(self) -> int:
        return self.offset if self.offset <= self.max_size else self._slot(self.offset)

    def _restore(self, keys: Any, values: Any, offset: int, slot: int) -> None:
        self.offset = offset
        if keys is None:
            return
        for buffer, rows in ((self._keys, keys), (self._values, values)):
            buffer.hold(rows)
            held = min(offset, buffer.capacity, self.max_size)
            if buffer.capacity > self.max_size:  # mlx-lm keeps a chunk's surplus, in order of time
                buffer.hold(self._latest(buffer))
            elif buffer.capacity < self.max_size:
                buffer.reserve(self.max_size, buffer.read(0, held), used=held)
        if offset > self.max_size:
            full = slot >= self.max_size  # the next one written is the oldest
            self._turn = ((self.keep if full else slot) - offset) % self.ring

    def _latest(self, buffer: Buffer) -> Rows:
        """The first and the latest rows of a buffer that is longer than the window."""
        size = buffer.capacity
        return join([buffer.read(0, self.keep), buffer.read(size - self.ring, size)])

    @classmethod
    def from_state(cls, state: tuple[Any, ...]) -> Self:
        """A cache holding `state`, as saved; mlx-lm's caches of the same name have the same.

        Set `rotation` on it to have its first tokens follow the window.
        """
        cache = cls.__new__(cls)
        cache.state = state
        return cache

    def copy(self) -> Self:
        """Another cache with the same content. Shares memory until either is written to."""
        other = self.from_state(self.state)
        other.rotation, other._moved_back = self.rotation, self._moved_back
        return other

    def is_trimmable(self) -> bool:
        """Whether any number of tokens can be taken back: until the first was pushed out."""
        return self.offset <= self.max_size

    def keep_undo(self, rows: int) -> int:
        """From now on, remember what up to `rows` of the latest tokens push out; 0 ends that.

        Returns how many tokens it will be: no more than the ring has slots.
        """
        rows = min(rows, self.ring)
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
            self._store(self._keys, write.keys, write.start)
            self._store(self._values, write.values, write.start)
        return n

    def restart(self) -> None:
        """Forget all but the first `keep` tokens, which are where they were."""
        self.offset = min(self.offset, self.keep)
        self._moved_back = self._turn = 0
        if self._undo is not None:
            self._undo.clear()

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedRotatingKVCache:
        """The same window, quantized. Raises CacheError for a layout that cannot be."""
        other = QuantizedRotatingKVCache(self.max_size, self.keep, self.rotation, group_size, bits)
        keys, values = self._rows_held()
        if keys is not None and values is not None:
            keys = other._keys.encode(self._keys.decode(keys))
            values = other._values.encode(self._values.decode(values))
        other._restore(keys, values, self.offset, self._next_slot())
        other._moved_back = self._moved_back
        return other


class QuantizedRotatingKVCache(RotatingKVCache):
    """RotatingKVCache with rows of 4 or 8 bits a value. `update_and_fetch` returns QuantizedRows."""

    def __init__(
        self,
        max_size: int,
        keep: int = 4,
        rotation: Rotation | None = None,
        group_size: int = 64,
        bits: int = 8,
    ) -> None:
        self.group_size, self.bits = group_size, bits
        super().__init__(max_size, keep, rotation)

    def _buffers(self) -> tuple[Buffer, Buffer]:
        return QuantizedBuffer(self.group_size, self.bits), QuantizedBuffer(self.group_size, self.bits)

    @property
    def state(self) -> tuple[Any, ...]:
        """As of RotatingKVCache, each of the rows (packed, scales, biases); then group size and bits."""
        slots = self.offset, self.keep, self.max_size, self._next_slot()
        return (*self._rows_held(), *slots, self.group_size, self.bits)

    @state.setter
    def state(self, value: tuple[Any, ...]) -> None:
        keys, values, offset, keep, max_size, slot, group_size, bits = value
        self.__init__(max_size, keep, None, group_size, bits)  # type: ignore[misc]
        self._restore(keys, values, offset, slot)

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> QuantizedRotatingKVCache:
        if (group_size, bits) == (self.group_size, self.bits):
            return self
        return super().to_quantized(group_size, bits)


def after(new: mx.array, copy: mx.array) -> mx.array:
    """`new`, which is not there before `copy` is."""
    waiting: list[mx.array] = mx.depends([new], [copy])
    return waiting[0]


def to_rotating(
    cache: KVCache, max_size: int, keep: int = 4, rotation: Rotation | None = None
) -> RotatingKVCache:
    """A full cache turned into one that rotates, quantized if it was: its first and latest tokens stay.

    Raises CacheError if `keep` leaves no room for others.
    """
    if isinstance(cache, QuantizedKVCache):
        layout = cache.group_size, cache.bits
        window: RotatingKVCache = QuantizedRotatingKVCache(max_size, keep, rotation, *layout)
    else:
        window = RotatingKVCache(max_size, keep, rotation)
    keys, values, *_ = cache.state
    # In the order of time, so that the slot written next is the oldest's, just behind the first ones.
    window._restore(keys, values, cache.offset, max_size)
    return window
