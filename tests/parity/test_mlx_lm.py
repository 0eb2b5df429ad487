"""mlx-lm and this package run each other's models, generation, caches and LoRA on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from conftest import KINDS, build
from mlx.utils import tree_flatten
from parity.model_cases import CASES, VOCAB, Raw, prompt, weights

from mlx_qwen3.cache.kv import KVCache
from mlx_qwen3.cache.prompt_cache import PromptCache, make_prompt_cache
from mlx_qwen3.generation.decode import decode
from mlx_qwen3.generation.params import SamplingParams
from mlx_qwen3.generation.sampling import Sampler
from mlx_qwen3.model.prepare import prepare
from mlx_qwen3.model.qwen3 import Model

mlx_lm = pytest.importorskip("mlx_lm")  # slow: it imports transformers

from mlx_lm.generate import generate_step, stream_generate  # noqa: E402
from mlx_lm.models import cache as their_cache  # noqa: E402
from mlx_lm.models import qwen3, qwen3_moe  # noqa: E402
from mlx_lm.tuner.trainer import TrainingArgs, train  # noqa: E402
from mlx_lm.tuner.utils import linear_to_lora_layers  # noqa: E402

TOLERANCE = 1e-4
TOKENS = 40


def their_model(raw: Raw) -> nn.Module:
    """mlx-lm's model of this config on the same weights, with its spelling of the config."""
    module = qwen3_moe if raw["model_type"] == "qwen3_moe" else qwen3
    rope = dict(raw["rope_parameters"])
    raw = {**raw, "rope_theta": rope.pop("rope_theta")}
    raw["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    model = module.Model(module.ModelArgs.from_dict(raw))
    tensors = {name: mx.array(value) for name, value in weights(raw).items()}
    model.load_weights(list(model.sanitize(tensors).items()), strict=True)
    return model


def greedy(model: Model, ids: list[int]) -> list[int]:
    """Our decode loop."""
    sampler = Sampler(SamplingParams(temperature=0), VOCAB)
    return list(islice(decode(model, ids, PromptCache(model), sampler), TOKENS))


def greedy_over(cache: list[Any], model: nn.Module, ids: list[int]) -> list[int]:
    """The likeliest tokens of any model over any cache, one pass per token."""
    logits = model(mx.array([ids]), cache)
    tokens = []
    while len(tokens) < TOKENS:
        tokens.append(int(logits[0, -1].argmax().item()))
        logits = model(mx.array([tokens[-1:]]), cache)
    return tokens


def their_greedy(model: nn.Module, ids: list[int], **options: Any) -> list[int]:
    """mlx-lm's decode loop."""
    return [int(token) for token, _ in generate_step(mx.array(ids), model, max_tokens=TOKENS, **options)]


# mlx-lm ignores YaRN in mixtures, and `attention_factor`. For those, transformers is the reference.
COMPARED = [name for name in CASES if name not in ("dense-far", "moe-yarn-4", "dense-yarn-factor-given")]


@pytest.mark.parametrize("case", COMPARED)
def test_logits_equal_theirs(case: str) -> None:
    raw, length = CASES[case]
    ids = mx.array(prompt(length, 2))
    ours, theirs = build(raw)(ids), their_model(raw)(ids)
    assert mx.abs(ours - theirs).max().item() <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_names_equal_theirs(kind: str) -> None:
    ours, theirs = (dict(tree_flatten(m(KINDS[kind]).parameters())) for m in (build, their_model))
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
def test_their_generation_runs_on_our_model(kind: str, prepared: bool) -> None:
    model, ids = build(KINDS[kind]), prompt(20, 1)[0].tolist()
    if prepared:
        prepare(model)
    ours = greedy(model, ids)
    assert greedy_over(make_prompt_cache(model), model, ids) == ours
    layers = range(len(model.layers))
    assert their_greedy(model, ids) == ours  # through model.make_cache: our KVCache
    assert their_greedy(model, ids, prompt_cache=[their_cache.KVCache() for _ in layers]) == ours
    rotating = [their_cache.RotatingKVCache(max_size=4096, keep=4) for _ in layers]
    assert their_greedy(model, ids, prompt_cache=rotating) == ours
    assert their_greedy(model, ids, prefill_step_size=7) == ours


def test_our_cache_runs_on_their_model() -> None:
    model, ids = their_model(KINDS["dense"]), prompt(20, 1)[0].tolist()
    ours = greedy_over([KVCache() for _ in model.layers], model, ids)
    assert ours == their_greedy(model, ids)
    assert ours == greedy_over(their_cache.make_prompt_cache(model), model, ids)
    assert ours == greedy(build(KINDS["dense"]), ids)  # our loop and model, on the same weights


def test_their_rotating_cache_wraps_as_on_their_model() -> None:
    ids = prompt(20, 1)[0].tolist()
    tokens = []
    for model in (build(KINDS["dense"]), their_model(KINDS["dense"])):
        cache = [their_cache.RotatingKVCache(max_size=16, keep=4) for _ in model.layers]
        tokens.append(their_greedy(model, ids, prompt_cache=cache))
    assert tokens[0] == tokens[1]


def letters() -> Any:
    """A tokenizer of transformers with one letter per token, as mlx-lm wraps it."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({chr(0x4E00 + i): i for i in range(VOCAB)}, unk_token=chr(0x4E00)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=tokenizer), eos_token_ids=[VOCAB])


def test_stream_generate() -> None:
    model, ids = build(KINDS["dense"]), prompt(20, 1)[0].tolist()
    tokens = [part.token for part in stream_generate(model, letters(), ids, max_tokens=TOKENS)]
    assert tokens == greedy(model, ids)


def test_their_cache_tools_on_our_cache(tmp_path: Path) -> None:
    model = build(KINDS["dense"])
    ids = prompt(30, 1)
    cache = make_prompt_cache(model)
    model(mx.array(ids), cache)
    assert their_cache.can_trim_prompt_cache(cache)
    assert their_cache.trim_prompt_cache(cache, 10) == 10
    expected = np.array(model(mx.array(ids)))[:, 20:]
    their_cache.save_prompt_cache(str(tmp_path / "cache.safetensors"), cache, {"model": "x"})
    loaded, metadata = their_cache.load_prompt_cache(str(tmp_path / "cache.safetensors"), True)
    assert metadata == {"model": "x"}
    for layers in (cache, loaded):
        assert np.abs(np.array(model(mx.array(ids[:, 20:]), layers)) - expected).max() <= TOLERANCE


class Batches:
    """A data set of `mlx_lm.tuner`: (tokens, where the answer starts)."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return prompt(24, 4)[index].tolist(), 0


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """On the CPU, `mx.compile` starts a C++ compiler for every kernel: half a minute for this model."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("quantized", [False, True], ids=["fp32", "4-bit"])
def test_lora_training(tmp_path: Path, quantized: bool) -> None:
    mx.random.seed(0)
    np.random.seed(0)
    model: Model = build(KINDS["dense"])
    if quantized:
        nn.quantize(model, 32, 4)
    prepare(model)
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 4, "scale": 10.0, "dropout": 0.0})
    names = [name for name, _ in tree_flatten(model.trainable_parameters())]
    assert {name.rsplit(".", 1)[1] for name in names} == {"lora_a", "lora_b"}
    before = {name: np.array(value) for name, value in tree_flatten(model.parameters())}
    seen: list[float] = []
    callback = SimpleNamespace(
        on_train_loss_report=lambda info: seen.append(info["train_loss"]),
        on_val_loss_report=lambda info: None,
    )
    args = TrainingArgs(batch_size=2, iters=40, steps_per_report=10, steps_per_eval=100, max_seq_length=32)
    args.adapter_file = str(tmp_path / "adapters.safetensors")
    train(model, optimizers.Adam(1e-3), Batches(), args=args, training_callback=callback)
    after = {name: np.array(value) for name, value in tree_flatten(model.parameters())}
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed
    assert changed <= set(names)
    assert seen[-1] < seen[0]
