"""How many kernels a decoded token starts, counted on MLX's lazy graph, for ours and for mlx-lm.

    python -m benchmarks.kernels [--json FILE]

Nothing is computed, so no GPU is needed: the graph of one step is built as for a GPU, exported, and its
primitives are counted. Norms, rotations, attention and (de)quantization are single kernels on a GPU. MLX's
CPU backend would expand them, so each is replaced by a scan that occurs nowhere else. Views (reshape,
slice, transpose, ...) start no kernel and are left out. What a primitive starts beyond its first kernel on
Metal (attention over many rows, sorting more than 2,048 values) is not seen.

The structure is that of Qwen3-0.6B, and of Qwen3-30B-A3B with 28 layers, in 4 bits. The number of kernels
depends on the layers, not on their sizes, so they are small. The sampler has the vocabulary's full size.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import mlx.nn as nn

from mlx_qwen3.cache.batch import batched_layers
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.generation.filters import draw
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import NOTHING, Sampler, choose_rows
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.prepare import compile_for_gpu
from mlx_qwen3.model.qwen3 import Model

LAYERS, TOKENS, BATCH = 28, 8, 8
HEADS, HEAD_DIM = 2, 64  # of keys
VOCABULARY = 151_936
VIEWS = {"AsStrided", "Broadcast", "BroadcastAxes", "Depends", "ExpandDims", "Flatten", "NumberOfElements"}
VIEWS |= {"Reshape", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten", "View"}
DENSE: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2 * HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": 256,
    "vocab_size": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
MOE: dict[str, Any] = DENSE | {
    "model_type": "qwen3_moe",
    "num_experts": 16,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 64,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Choose what a GPU would be given, and count its fast kernels as one primitive each."""
    stand_ins: list[tuple[Any, str, Any]] = [
        (mx.fast, "rms_norm", lambda x, *_, **__: mx.cummax(x, axis=-1)),
        (mx.fast, "rope", lambda x, *_, **__: mx.cummin(x, axis=-1)),
        (mx.fast, "scaled_dot_product_attention", lambda q, k, v, **_: _after(mx.cumprod(q, axis=-1), k, v)),
        (mx, "dequantize", _dequantize),
    ]
    modules = [module for name, module in sys.modules.items() if name.startswith("mlx_qwen3.")]
    stand_ins += [(module, "is_cpu", lambda: False) for module in modules if hasattr(module, "is_cpu")]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in stand_ins]
    try:
        for owner, name, value in stand_ins:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _after(result: mx.array, *inputs: Any) -> mx.array:
    """`result`, as if it were computed from `inputs` too."""
    arrays = [array for array in inputs if isinstance(array, mx.array)]
    return mx.depends(result, arrays)


def _dequantize(
    packed: mx.array, scales: mx.array, biases: mx.array | None = None, **options: Any
) -> mx.array:
    width = packed.shape[-1] * 32 // options["bits"]
    values = mx.broadcast_to(scales[..., :1], (*packed.shape[:-1], width))
    return _after(mx.logcumsumexp(values, axis=-1), packed, biases)


def kernels(*outputs: mx.array) -> Counter[str]:
    """The primitives of the graph that computes `outputs`, views left out."""
    text = io.StringIO()
    mx.export_to_dot(text, *outputs)
    labels = re.findall(r'\[label ="([^"]+)", shape=rectangle\]', text.getvalue())
    return Counter(label for label in labels if label not in VIEWS)


def our_model(raw: dict[str, Any], bits: int | None = 4) -> Model:
    """A model as `load_model` prepares it for a GPU."""
    model = Model(ModelConfig.from_dict(raw))
    if bits is not None:
        nn.quantize(model, group_size=64, bits=bits)
    mx.eval(model.parameters())
    model.eval()
    compile_for_gpu(model)
    return model


def filled_cache(model: Any, **options: Any) -> list[Any]:
    """A cache that holds TOKENS tokens, computed."""
    cache: list[Any] = list(make_prompt_cache(model, **options))
    for layer in cache:
        rows = mx.ones((1, HEADS, TOKENS, HEAD_DIM))
        layer.update_and_fetch(rows, rows)
    mx.eval([layer.state for layer in cache])
    return cache


def our_step(raw: dict[str, Any], **options: Any) -> Counter[str]:
    """One decoded token of ours."""
    model = our_model(raw)
    cache = filled_cache(model, **options)
    ids = mx.array([[1]], mx.uint32)
    with as_on_a_gpu():
        return kernels(model(ids, cache), *_written(cache))


def our_ragged_step(raw: dict[str, Any], batch: int = BATCH) -> Counter[str]:
    """One decoded token of each of several sequences of different lengths."""
    model = our_model(raw)
    caches = [filled_cache(model) for _ in range(batch)]
    layers = batched_layers(caches, [1] * batch)
    ids = mx.ones((batch, 1), mx.uint32)
    mx.eval(ids)
    with as_on_a_gpu():
        return kernels(model(ids, layers), *(array for cache in caches for array in _written(cache)))


def _written(cache: list[Any]) -> list[mx.array]:
    """What a step leaves in a cache."""
    arrays: list[mx.array] = []
    for layer in cache:
        for rows in (layer.keys, layer.values):
            arrays += [rows] if isinstance(rows, mx.array) else list(rows)
    return arrays


def our_sampler(params: SamplingParams | None = None) -> Counter[str]:
    """From logits to a token."""
    params = params or SamplingParams()
    logits, key = mx.ones(VOCABULARY), mx.array([1, 2], mx.uint32)
    mx.eval(logits)

    def drawn(row: mx.array, own: mx.array) -> mx.array:
        return draw(row, own, params)

    compiled: Callable[..., mx.array] = mx.compile(drawn)
    return kernels(compiled(logits, key))


def penalized_sampler() -> Counter[str]:
    """From logits to a token, with a presence penalty."""
    sampler = Sampler(SamplingParams(presence_penalty=1.5, seed=1), VOCABULARY)
    logits = mx.ones((1, VOCABULARY))
    mx.eval(logits, sampler._counts)
    with as_on_a_gpu():
        return kernels(choose_rows([sampler], [NOTHING], logits))


def mlx_lm_step(raw: dict[str, Any]) -> Counter[str]:
    """One decoded token of mlx-lm's."""
    from importlib import import_module

    from mlx_lm.models.cache import make_prompt_cache as make_cache

    module: Any = import_module(f"mlx_lm.models.{raw['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(raw))
    nn.quantize(model, group_size=64, bits=4)
    mx.eval(model.parameters())
    cache: list[Any] = make_cache(model)
    for layer in cache:
        rows = mx.ones((1, HEADS, TOKENS, HEAD_DIM))
        layer.update_and_fetch(rows, rows)
    mx.eval([layer.state for layer in cache])
    ids = mx.array([[1]], mx.uint32)
    with as_on_a_gpu():
        return kernels(model(ids, cache=cache), *_written(cache))


def mlx_lm_sampler() -> Counter[str]:
    """From logits to a token, by mlx-lm."""
    from mlx_lm.sample_utils import make_sampler

    params = SamplingParams()
    sample = make_sampler(params.temperature, params.top_p, top_k=params.top_k)
    logits = mx.ones((1, VOCABULARY))
    mx.eval(logits, mx.random.state)
    return kernels(sample(logits - mx.logsumexp(logits, keepdims=True)))


OURS: dict[str, Callable[[], Counter[str]]] = {
    "dense": lambda: our_step(DENSE),
    "mixture of experts": lambda: our_step(MOE),
    "dense, 8-bit cache": lambda: our_step(DENSE, bits=8),
    "dense, window": lambda: our_step(DENSE, max_size=64),
    f"dense, {BATCH} sequences": lambda: our_ragged_step(DENSE),
    "sampler": our_sampler,
    "sampler, with penalties": penalized_sampler,
}
THEIRS: dict[str, Callable[[], Counter[str]]] = {
    "dense": lambda: mlx_lm_step(DENSE),
    "mixture of experts": lambda: mlx_lm_step(MOE),
    "sampler": mlx_lm_sampler,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the counts of every primitive here")
    arguments = parser.parse_args()
    counts = {name: {"mlx-qwen3": count()} for name, count in OURS.items()}
    for name, count in THEIRS.items():
        counts[name]["mlx-lm"] = count()
    print(f"{'kernels of a token, ' + str(LAYERS) + ' layers':34}{'mlx-qwen3':>12}{'mlx-lm':>10}")
    for name, by_engine in counts.items():
        totals = {engine: str(sum(found.values())) for engine, found in by_engine.items()}
        print(f"{name:34}{totals['mlx-qwen3']:>12}{totals.get('mlx-lm', ''):>10}")
    if arguments.json:
        arguments.json.write_text(json.dumps(counts, indent=2))


if __name__ == "__main__":
    main()
