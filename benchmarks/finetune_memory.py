"""Measures the memory of training steps beside what is planned for them: python -m benchmarks.finetune_memory

Small random models, one step each: what MLX had allocated at most, beyond what it had before the step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx

from mlx_qwen3.finetuning import FinetuneOptions, finetune, train
from mlx_qwen3.finetuning.memory import plan_training

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, write_checkpoint

# The shape of a 0.6B, with fewer layers and ids.
WIDE = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 2000,
}
CASES: list[tuple[int, int, dict[str, Any], dict[str, Any]]] = [  # batch size, characters, model, options
    (1, 200, {}, {}),
    (4, 200, {}, {}),
    (1, 900, {}, {}),
    (4, 200, {"hidden_size": 256, "intermediate_size": 1024}, {}),
    (4, 200, {"num_hidden_layers": 8}, {}),
    (4, 200, {"num_hidden_layers": 8}, {"layers": 1}),
    (4, 200, {"vocab_size": 3000}, {}),
    (1, 200, {"hidden_size": 256, "intermediate_size": 1024}, {"method": "dora"}),
    (1, 200, WIDE, {}),
    (1, 500, WIDE, {}),
    (2, 200, WIDE, {}),
    (1, 200, WIDE | {"num_hidden_layers": 4}, {}),
    (1, 200, WIDE | {"hidden_size": 2048}, {}),
    (1, 200, WIDE | {"intermediate_size": 8192}, {}),
    (1, 200, WIDE | {"num_attention_heads": 32}, {}),
    (1, 200, WIDE | {"vocab_size": 30000}, {}),
    (1, 200, WIDE, {"method": "dora"}),
    (1, 200, WIDE | {"num_hidden_layers": 4}, {"layers": 1}),
]


def measure(folder: Path, batch_size: int, characters: int, model: dict[str, Any], **options: Any) -> None:
    """Train one step, and print what it took."""
    write_byte_tokenizer(folder / "model")
    write_checkpoint(folder / "model", DENSE | model)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * characters}]
    (folder / "data.jsonl").write_text((json.dumps({"messages": messages}) + "\n") * batch_size)
    batches = train._Training._batches
    seen: dict[str, int] = {}

    def watched(self: Any) -> Iterator[tuple[mx.array, mx.array]]:
        for ids, ends in batches(self):
            mx.reset_peak_memory()
            seen.update(tokens=ids.shape[1], before=mx.get_active_memory())
            yield ids, ends

    chosen = FinetuneOptions(steps=1, batch_size=batch_size, thinking=False, **options)
    train._Training._batches = watched  # type: ignore[method-assign]
    try:
        finetune(folder / "model", folder / "data.jsonl", folder / "adapter", chosen)
    finally:
        train._Training._batches = batches  # type: ignore[method-assign]
    taken = mx.get_peak_memory() - seen["before"]
    planned = plan_training(folder / "model", "", chosen, seen["tokens"]).activations
    print(
        f"{batch_size} x {seen['tokens']} tokens, {model} {options}: {taken / 1e6:.1f} MB, "
        f"planned {planned / 1e6:.1f} ({planned / taken - 1:+.0%})",
        flush=True,
    )


def main() -> None:
    for batch_size, characters, model, options in CASES:
        with TemporaryDirectory() as folder:
            measure(Path(folder), batch_size, characters, model, **options)


if __name__ == "__main__":
    main()
