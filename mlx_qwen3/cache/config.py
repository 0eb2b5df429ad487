"""CacheConfig: the options of a KV cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from mlx_qwen3.cache.kv import capacity_for


@dataclass(frozen=True)
class CacheConfig:
    """How keys and values are stored, the same in every layer.

    Attributes:
        max_size: Tokens of a sliding window; None keeps every token.
        keep: First tokens that a window never drops (attention sinks).
        bits: 4 or 8 quantizes keys and values; None keeps their dtype.
        group_size: Values that share a scale if they are quantized: 32, 64 or 128.
    """

    max_size: int | None = None
    keep: int = 4
    bits: int | None = None
    group_size: int = 64

    def changes(self) -> dict[str, int | None]:
        """The fields that differ from their defaults."""
        values = asdict(self)
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in values.items() if value != defaults[name]}

    @property
    def window_and_layout(self) -> tuple[int, ...]:
        """(keep, max_size) of a window, then (group_size, bits) of packed rows."""
        window = () if self.max_size is None else (self.keep, self.max_size)
        return window + (() if self.bits is None else (self.group_size, self.bits))

    def capacity(self, tokens: int) -> int:
        """The capacity of a layer's buffers once they hold `tokens`, in tokens."""
        return capacity_for(tokens) if self.max_size is None else self.max_size

    def row_nbytes(self, head_dim: int, itemsize: int) -> int:
        """Bytes of one head's key or value of one token. itemsize: bytes of a number of the model's dtype."""
        if self.bits is None:
            return head_dim * itemsize
        return head_dim * self.bits // 8 + 2 * itemsize * head_dim // self.group_size
