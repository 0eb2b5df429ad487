"""FinetuneOptions: what decides the result of a training."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_qwen3.errors import ConversionError


@dataclass(frozen=True)
class FinetuneOptions:
    """What decides the result of a training.

    Attributes:
        method: `lora` or `dora`.
        rank: Of the updates.
        scale: That the updates are multiplied by.
        layers: The last so many layers are adapted; None is all.
        steps: Batches to learn from.
        batch_size: Answers in a batch.
        learning_rate: Of Adam.
        max_length: The most tokens of a prompt and its answer.
        thinking: Whether the thinking of answers (`reasoning_content`) is learned too.
        seed: Of the first weights and of the order.
    """

    method: str = "lora"
    rank: int = 8
    scale: float = 20.0
    layers: int | None = None
    steps: int = 200
    batch_size: int = 4
    learning_rate: float = 1e-4
    max_length: int = 2048
    thinking: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("lora", "dora"):
            raise ConversionError(f"method {self.method!r} is unknown; use lora or dora")
        for name in ("rank", "steps", "batch_size", "max_length"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConversionError(f"{name} must be a positive whole number, not {value!r}")
        if not 0 < self.learning_rate < 1:
            raise ConversionError(f"learning_rate must be between 0 and 1, not {self.learning_rate!r}")
