"""Perplexity over a text far longer than the model was trained for, by kind of KV cache.

    python -m benchmarks.endless [--minutes 6] [--length 5120]

Trains a small byte-level Qwen3 on windows of 256 bytes of Python's standard library (once; kept in models/).
Then it feeds held-out sources of the same library through each cache, in batches, and plots the perplexity by
position (`docs/endless.png`), with a table.
"""

from __future__ import annotations

import argparse
import random
import sysconfig
import time
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten

from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

TRAINED = 256  # bytes of a training window
WINDOW = 128
HELD_OUT = 10  # every tenth file is held out
BATCH, RATE = 4, 4e-3
STREAMS, CHUNK = 8, 64
WEIGHTS = Path("models") / "endless.safetensors"
PLOT = Path("docs") / "endless.png"

CONFIG = ModelConfig(
    model_type="qwen3",
    hidden_size=96,
    num_hidden_layers=2,
    intermediate_size=256,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=256,
    max_position_embeddings=TRAINED,
    tie_word_embeddings=True,
)


def sources() -> tuple[list[bytes], list[bytes]]:
    """The standard library's modules: those for training, and those held out."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("**/*.py"))
    files = [file for file in files if not {"site-packages", "test", "idlelib"} & set(file.parts)]
    random.Random(0).shuffle(files)
    texts = [file.read_bytes() for file in files]
    trained = [text for number, text in enumerate(texts) if number % HELD_OUT]
    return trained, texts[::HELD_OUT]


def train(minutes: float) -> Model:
    """A model trained for `minutes` on windows of TRAINED bytes; loaded if it was trained before."""
    mx.random.seed(0)
    model = Model(CONFIG)
    if WEIGHTS.exists():
        model.load_weights(str(WEIGHTS))
        return model
    data = np.frombuffer(b"\n".join(sources()[0]), np.uint8)
    rng, start, step = np.random.default_rng(0), time.monotonic(), 0
    optimizer = optimizers.AdamW(RATE, betas=[0.9, 0.95], weight_decay=0.01)
    gradient = nn.value_and_grad(model, loss)
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimizer.learning_rate = RATE * min(1.0, (step + 1) / 50, (1.02 - share) / 0.5)
        places = rng.integers(0, len(data) - TRAINED - 1, BATCH)
        windows = mx.array(np.stack([data[i : i + TRAINED + 1] for i in places]).astype(np.int32))
        value, gradients = gradient(model, windows)
        gradients, _ = optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        if step % 100 == 0:
            print(f"step {step}, {share:.0%}: perplexity {np.exp(value.item()):.2f}", flush=True)
        step += 1
    WEIGHTS.parent.mkdir(exist_ok=True)
    mx.save_safetensors(str(WEIGHTS), dict(tree_flatten(model.parameters())))
    return model


def loss(model: Model, windows: mx.array) -> mx.array:
    """Mean cross-entropy of the next byte in `windows` (B, L + 1)."""
    return nn.losses.cross_entropy(model(windows[:, :-1]), windows[:, 1:]).mean()


def streams(length: int) -> mx.array:
    """Held-out text (STREAMS, length + 1), each row of several files."""
    data = np.frombuffer(b"\n".join(sources()[1]), np.uint8)
    starts = np.linspace(0, len(data) - length - 1, STREAMS).astype(int)
    return mx.array(np.stack([data[i : i + length + 1] for i in starts]).astype(np.int32))


def perplexities(model: Model, cache: list[Any], text: mx.array) -> np.ndarray:
    """Perplexity of every TRAINED bytes of `text` (B, L + 1), fed through `cache`."""
    entropies = []
    for start in range(0, text.shape[1] - 1, CHUNK):
        chunk = text[:, start : start + CHUNK + 1]
        logits = model(chunk[:, :-1], cache)
        entropies.append(nn.losses.cross_entropy(logits, chunk[:, 1:]).mean(axis=0))
        mx.eval(entropies[-1], [layer.state for layer in cache])
    along = np.concatenate([np.array(each) for each in entropies])
    return np.exp(along.reshape(-1, TRAINED).mean(axis=1))


def caches(model: Model) -> dict[str, list[Any]]:
    """The caches to compare, by name."""
    left_behind: list[Any] = make_prompt_cache(model, max_size=WINDOW)
    for layer in left_behind:
        layer.rotation = None
    return {
        f"rotating, {WINDOW} tokens": make_prompt_cache(model, max_size=WINDOW),
        f"rotating, {WINDOW} tokens, 4 bits": make_prompt_cache(
            model, max_size=WINDOW, bits=4, group_size=32
        ),
        f"rotating, {WINDOW} tokens, first tokens left behind": left_behind,
        "full, absolute positions": make_prompt_cache(model),
    }


def plot(curves: dict[str, np.ndarray]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    for name, values in curves.items():
        axes.plot((np.arange(len(values)) + 0.5) * TRAINED, values, label=name)
    axes.axvline(TRAINED, color="grey", linestyle=":", label="trained length")
    axes.set(xlabel="position in the stream (bytes)", ylabel="perplexity per byte", yscale="log")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Train if needed, measure, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--length", type=int, default=20 * TRAINED)
    options = parser.parse_args()
    model = train(options.minutes)
    text = streams(options.length)
    curves = {name: perplexities(model, cache, text) for name, cache in caches(model).items()}
    for name, values in curves.items():
        ends = f"{values[0]:6.2f} {values[1]:6.2f} {values[len(values) // 2]:8.2f} {values[-1]:8.2f}"
        print(f"{name:55} {ends}   whole {np.exp(np.log(values).mean()):8.2f}")
    plot(curves)


if __name__ == "__main__":
    main()
