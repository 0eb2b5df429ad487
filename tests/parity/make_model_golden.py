"""Writes model_golden.npz, the results of transformers' Qwen3 for the cases of `model_cases`. Needs torch.

cd tests && ../.venv/bin/python -m parity.make_model_golden
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from parity.model_cases import CASES, GREEDY_TOKENS, prompt
from parity.transformers_reference import greedy, logits

GOLDEN = Path(__file__).parent / "model_golden.npz"
LAST = 4  # positions whose logits are kept


def main() -> None:
    arrays = {}
    for name, (raw, length) in CASES.items():
        batch = 1 if length > 1000 else 3
        arrays[f"{name}/logits"] = logits(raw, prompt(length, batch), LAST)
        count = 20 if length > 1000 else GREEDY_TOKENS
        arrays[f"{name}/greedy"] = np.array(greedy(raw, prompt(length, 1), count), np.uint8)
        print(name, arrays[f"{name}/logits"].std(), len(set(arrays[f"{name}/greedy"].tolist())))
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
