"""mlx-lm batches, bounds, trains and evaluates our model as it does its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mlx_qwen3  # isort: skip  # before mlx.core: brings the fast BLAS
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import KINDS, build
from mlx.utils import tree_flatten
from parity.test_mlx_lm import their_model
from tiny_checkpoints import CACHES

from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.prompt_cache import make_prompt_cache
from mlx_qwen3.cache.window.rotating import RotatingKVCache
from mlx_qwen3.checkpoint import load_model
from mlx_qwen3.checkpoint.tokenizer import load_tokenizer
from mlx_qwen3.errors import CacheError
from mlx_qwen3.model.mlp import QuantizedSwitchLinear, SwitchLinear
from mlx_qwen3.model.prepare import prepare
from mlx_qwen3.model.qwen3 import Model
from mlx_qwen3.tokenizer import Tokenizer

mlx_lm = pytest.importorskip("mlx_lm")

from mlx_lm.generate import BatchGenerator, batch_generate, generate_step, stream_generate  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters  # noqa: E402

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [8], [2, 7, 1, 8]]


@pytest.fixture(scope="module")
def model() -> Model:
    return build(KINDS["dense-tied"])


@pytest.fixture(scope="module")
def demo() -> tuple[Model, Tokenizer]:
    return load_model("demo"), load_tokenizer("demo")


def alone(model: nn.Module, prompt: list[int], count: int, **options: Any) -> list[int]:
    """The tokens of mlx-lm's generation of one sequence."""
    return [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=count, **options)]


def batched(model: nn.Module, prompts: list[list[int]], count: int, **options: Any) -> list[list[int]]:
    """The tokens of mlx-lm's batches. options: of `insert`."""
    generator = BatchGenerator(model, max_tokens=count, stop_tokens=[])
    tokens: dict[int, list[int]] = {uid: [] for uid in generator.insert(prompts, **options)}
    for _ in range(count + 8):
        for response in generator.next_generated():
            tokens[response.uid].append(response.token)
    return list(tokens.values())


def test_a_batch_says_what_each_sequence_says_alone(tiny_model: Model) -> None:
    assert batched(tiny_model, PROMPTS, 12) == [alone(tiny_model, prompt, 12) for prompt in PROMPTS]


@pytest.mark.parametrize("filled", [3, 12, 40])
def test_caches_with_a_history_join_a_batch(model: Model, filled: int) -> None:
    """A full one, and a window before and after it is full."""
    history = np.random.default_rng(filled).integers(0, 90, filled).tolist()
    for options in ({}, {"max_size": 16, "keep": 0}):
        expected, caches = [], []
        for prompt in PROMPTS[1:]:
            for kept in (expected, caches):
                cache = make_prompt_cache(model, **options)
                model(mx.array([history]), cache)
                kept.append(alone(model, prompt, 9, prompt_cache=cache) if kept is expected else cache)
        assert batched(model, PROMPTS[1:], 9, caches=caches) == expected


@pytest.mark.parametrize("kind", [kind for kind, options in CACHES.items() if "bits" in options])
def test_a_quantized_cache_is_no_batch_in_one_line(model: Model, kind: str) -> None:
    cache = make_prompt_cache(model, **CACHES[kind])
    with pytest.raises(CacheError, match=r"no batches of quantized KV caches: .*generate_batch"):
        cache[0].merge([cache[0], cache[0]])  # type: ignore[attr-defined]


def test_batch_generate_takes_our_model_and_tokenizer(demo: tuple[Model, Tokenizer]) -> None:
    model, tokenizer = demo
    questions = ("what is 47+85?", "hi", "name three colours")
    prompts = [tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in questions]
    result = batch_generate(model, tokenizer, prompts, max_tokens=8, return_token_ids=True)
    single = [
        [r.token for r in stream_generate(model, tokenizer, prompt, max_tokens=8)] for prompt in prompts
    ]
    assert result.token_ids == single


@pytest.mark.parametrize("size", [6, 20, None])
def test_max_kv_size_makes_windows(model: Model, size: int | None) -> None:
    from mlx_lm.models.cache import make_prompt_cache as theirs

    caches = theirs(model, size)
    assert {type(cache) for cache in caches} == {RotatingKVCache if size else KVCache}
    assert [cache.max_size for cache in caches if size] == [size for _ in caches if size]
    model(mx.array([list(range(40))]), caches)
    assert caches[0].keys.shape[2] == (size or 256)


def test_max_kv_size_reaches_stream_generate(model: Model) -> None:
    windowed = make_prompt_cache(model, max_size=12)
    expected = alone(model, PROMPTS[0], 30, prompt_cache=windowed)
    assert alone(model, PROMPTS[0], 30, max_kv_size=12) == expected


def test_a_function_of_that_name_elsewhere_asks_for_nothing(model: Model) -> None:
    def make_prompt_cache(model: Model, max_kv_size: int) -> list[Any]:
        return list(model.make_cache())

    assert isinstance(make_prompt_cache(model, 8)[0], KVCache)


def test_embeddings_are_read_in_place_of_ids(model: Model) -> None:
    ids = mx.array([PROMPTS[0]])
    embeddings = model.model.embed_tokens(ids)
    assert mx.allclose(model(mx.zeros_like(ids), input_embeddings=embeddings), model(ids), atol=1e-5)
    doubled = model(ids, input_embeddings=2 * embeddings + 0.1)
    assert not mx.allclose(doubled, model(ids), atol=1e-2)
    from_ids = alone(model, PROMPTS[0], 8)
    assert alone(model, [], 8, input_embeddings=embeddings[0], prefill_step_size=4) == from_ids


# LoRA on experts

CONFIG = {"rank": 4, "scale": 10.0, "dropout": 0.0}


def trained(model: nn.Module, seed: int = 0, **config: Any) -> dict[str, mx.array]:
    """Adapters of all layers, with random values in place of training; put into `model`."""
    model.freeze()
    linear_to_lora_layers(model, 2, {**CONFIG, **config})
    generator = np.random.default_rng(seed)
    shapes = tree_flatten(model.trainable_parameters())
    values = {name: mx.array(generator.normal(0, 0.05, array.shape)) for name, array in sorted(shapes)}
    model.load_weights([(name, value.astype(mx.float32)) for name, value in values.items()], strict=False)
    return values


@pytest.mark.parametrize("prepared", [False, True])
def test_experts_get_the_adapters_of_mlx_lm(make_model: Any, prepared: bool) -> None:
    raw = KINDS["moe"]
    ours, theirs = make_model(raw), their_model(raw)
    if prepared:
        prepare(ours)
    assert trained(ours).keys() == trained(theirs).keys()
    ids = mx.array([[1, 5, 9, 2, 7] * 8])  # enough pairs to be sorted
    assert mx.allclose(ours(ids), theirs(ids), atol=1e-4)
    assert not mx.allclose(ours(ids), make_model(raw)(ids), atol=1e-2)
    assert mx.allclose(ours(ids[:, :2]), theirs(ids[:, :2]), atol=1e-4)


def test_adapters_that_mlx_lm_saved_load(make_model: Any, tmp_path: Path) -> None:
    theirs = their_model(KINDS["moe"])
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), trained(theirs))
    config = f'{{"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {CONFIG}}}'.replace("'", '"')
    (tmp_path / "adapter_config.json").write_text(config)
    ours = load_adapters(make_model(KINDS["moe"]), str(tmp_path))
    ids = mx.array([PROMPTS[0]])
    assert mx.allclose(ours(ids), theirs(ids), atol=1e-4)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", None])
@pytest.mark.parametrize("dequantize", [False, True])
def test_a_fused_update_gives_the_same_logits(mode: str | None, dequantize: bool) -> None:
    mx.random.seed(3)
    experts: Any = SwitchLinear(64, 96, 3)
    if mode:
        experts = experts.to_quantized(bits=8 if mode == "affine" else None, mode=mode)
    lora = experts.to_lora(r=2, scale=3.0)
    lora.lora_b = mx.random.normal(lora.lora_b.shape) * 0.02
    x, chosen = mx.random.normal((6, 1, 64)), mx.array([0, 2, 1, 1, 0, 2])
    fused = lora.fuse(dequantize=dequantize)
    assert isinstance(fused, QuantizedSwitchLinear) == (mode is not None and not dequantize)
    coarse = mode == "mxfp4" and not dequantize
    assert mx.abs(fused(x, chosen) - lora(x, chosen)).max().item() < (0.5 if coarse else 0.05)
    if mode is None or dequantize:  # mxfp4 unpacks to bfloat16
        assert mx.allclose(fused(x, chosen), lora(x, chosen), atol=1e-2 if mode == "mxfp4" else 1e-4)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_experts_are_quantized_with_the_defaults_of_their_mode(mode: str) -> None:
    experts = SwitchLinear(128, 32, 3)
    linear = nn.Linear(128, 32, bias=False)
    quantized, reference = experts.to_quantized(mode=mode), linear.to_quantized(mode=mode)
    assert (quantized.group_size, quantized.bits) == (reference.group_size, reference.bits)
    assert quantized.scales.shape[1:] == reference.scales.shape
    assert (quantized.input_dims, quantized.output_dims, quantized.num_experts) == (128, 32, 3)
    assert quantized(mx.ones((2, 1, 128)), mx.array([0, 2])).shape == (2, 1, 32)


# Evaluation


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """mlx_lm.evaluate without lm_eval's hundred packages, of which its model class needs two names."""
    for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model", "lm_eval.api.registry"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lm_eval.api.model"].LM = object  # type: ignore[attr-defined]
    sys.modules["lm_eval.api.registry"].register_model = lambda *names: lambda cls: cls  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "mlx_lm.evaluate", raising=False)
    import mlx_lm.evaluate

    yield mlx_lm.evaluate
    del sys.modules["mlx_lm.evaluate"]


def test_its_evaluation_scores_our_model_as_its_own(
    evaluate: ModuleType, demo: tuple[Model, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    results = []
    pairs = [("The capital of France is", " Paris"), ("2 + 2 =", " 4")]
    ours = demo[0], TokenizerWrapper(demo[1])
    theirs = mlx_lm.load(str(Path(mlx_qwen3.__file__).parent / "demo"))
    theirs[0].set_dtype(mx.float32)  # as ours on a CPU; in 16 bits unlikely texts differ by halves
    for loaded in (ours, theirs):
        monkeypatch.setattr(evaluate, "load", lambda *_, loaded=loaded, **__: loaded)
        scorer = evaluate.MLXLM("demo", max_tokens=3)
        scores = scorer.loglikelihood([SimpleNamespace(args=pair) for pair in pairs])
        until = [SimpleNamespace(args=(text, {"until": ["\n\n"]})) for text, _ in pairs]
        texts = scorer.generate_until(until)
        results.append((np.array([score for score, _ in scores]), [greedy for _, greedy in scores], texts))
    assert np.allclose(results[0][0], results[1][0], atol=0.01)
    assert results[0][1:] == results[1][1:]
