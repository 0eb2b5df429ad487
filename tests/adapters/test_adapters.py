"""Adapters give the logits that their own programs give; those of other models are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, IDS, MOE, logits, write_checkpoint
from typer.testing import CliRunner

import mlx_qwen3.conversion.source.chunks as chunks
from mlx_qwen3 import Engine, load_model
from mlx_qwen3.adapters import add_adapter, read_adapter
from mlx_qwen3.cli.app import app
from mlx_qwen3.conversion import convert
from mlx_qwen3.errors import CheckpointError

KEYS = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", "mlp.switch_mlp.up_proj"]


def train(model_folder: Path, folder: Path, kind: str = "lora", layers: int = 2) -> np.ndarray:
    """An adapter as mlx_lm.lora saves it, with random numbers; returns the logits of mlx-lm."""
    from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
    from mlx_lm.utils import load_model as mlx_lm_load

    parameters = {"rank": 4, "scale": 3.0, "dropout": 0.0, "keys": KEYS[: 3 if kind == "dora" else 4]}
    model = mlx_lm_load(model_folder)[0]
    linear_to_lora_layers(model, layers, parameters, use_dora=kind == "dora")
    random = np.random.default_rng(3)
    weights = {}
    for name, value in tree_flatten(model.parameters()):
        leaf = name.rpartition(".")[2]
        if leaf in ("lora_a", "lora_b"):
            weights[name] = mx.array(random.normal(0, 0.1, value.shape).astype(np.float32))
        elif leaf == "m":
            weights[name] = value.astype(mx.float32) * mx.array(
                random.uniform(0.8, 1.2, value.shape).astype(np.float32)
            )
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {
        "fine_tune_type": kind,
        "num_layers": layers,
        "lora_parameters": parameters,
        "model": "org/base",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return logits(load_adapters(mlx_lm_load(model_folder)[0].eval(), str(folder)))


def write_model(folder: Path, kind: str = "dense", bits: int | None = None) -> Path:
    write_byte_tokenizer(folder)
    write_checkpoint(folder, MOE if kind == "moe" else DENSE)
    if bits is None:
        return folder
    convert(folder, folder.parent / "small", bits=bits, group_size=32, verify=False)
    return folder.parent / "small"


def adapted(model_folder: Path, adapter: Path) -> Any:
    model = load_model(model_folder)
    add_adapter(model, read_adapter(adapter), "the model")
    return model


@pytest.mark.parametrize(
    ("kind", "bits", "method"),
    [
        ("dense", None, "lora"),
        ("dense", 4, "lora"),
        ("moe", None, "lora"),
        ("moe", 8, "lora"),
        ("dense", None, "dora"),
        ("dense", 8, "dora"),
    ],
)
def test_logits_are_those_of_mlx_lm(tmp_path, kind, bits, method):
    folder = write_model(tmp_path / "model", kind, bits)
    plain = logits(load_model(folder))
    expected = train(folder, tmp_path / "adapter", method)
    ours = adapted(folder, tmp_path / "adapter")
    np.testing.assert_allclose(logits(ours), expected, atol=1e-4 if bits is None else 2e-3)
    assert np.abs(expected - plain).max() > 0.05
    cache = ours.make_cache()  # token by token, as it is decoded
    steps = [np.array(ours(mx.array([[token]]), cache))[0, 0] for token in IDS[0]]
    np.testing.assert_allclose(steps, logits(ours), atol=1e-4)


def write_peft(folder: Path, dora: bool = False, rslora: bool = False, **more: Any) -> dict[str, np.ndarray]:
    """An adapter after PEFT's description; returns what its matrices add, or with DoRA become, by name."""
    random = np.random.default_rng(5)
    tensors, added = {}, {}
    shapes = {"layers.0.self_attn.q_proj": (128, 128), "layers.1.mlp.up_proj": (256, 128)}
    for path, (outputs, inputs) in shapes.items():
        size = more.get("rank_pattern", {}).get(path.rpartition(".")[2], 8)
        a = random.normal(0, 0.1, (size, inputs)).astype(np.float32)
        b = random.normal(0, 0.1, (outputs, size)).astype(np.float32)
        prefix = f"base_model.model.model.{path}"
        tensors |= {f"{prefix}.lora_A.weight": mx.array(a), f"{prefix}.lora_B.weight": mx.array(b)}
        added[f"model.{path}.weight"] = b @ a * (16 / size**0.5 if rslora else 16 / size)
        if dora:
            magnitude = random.uniform(2, 4, outputs).astype(np.float32)
            tensors[f"{prefix}.lora_magnitude_vector"] = mx.array(magnitude)
            added[f"model.{path}.magnitude"] = magnitude
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), tensors)
    config = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "use_dora": dora,
        "use_rslora": rslora,
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | more))
    return added


@pytest.mark.parametrize(
    "options", [{}, {"dora": True}, {"rslora": True}, {"rank_pattern": {"up_proj": 2}}], ids=str
)
def test_adapters_of_peft(tmp_path, options):
    folder = write_model(tmp_path / "model")
    added = write_peft(tmp_path / "adapter", **options)
    tensors: Any = mx.load(str(folder / "model.safetensors"))
    for name in [name for name in added if name.endswith(".weight")]:
        weight = np.array(tensors[name]) + added[name]
        if options.get("dora"):
            magnitude = added[name.replace(".weight", ".magnitude")]
            weight *= (magnitude / np.linalg.norm(weight, axis=1))[:, None]
        tensors[name] = mx.array(weight)
    write_model(tmp_path / "meant")
    mx.save_safetensors(str(tmp_path / "meant" / "model.safetensors"), tensors)
    expected = logits(load_model(tmp_path / "meant"))
    np.testing.assert_allclose(logits(adapted(folder, tmp_path / "adapter")), expected, atol=1e-4)


def test_an_engine_runs_it_and_its_caches_are_its_own(tmp_path):
    folder = write_model(tmp_path / "model")
    train(folder, tmp_path / "adapter")
    sampling = {"max_tokens": 6, "temperature": 0}
    with Engine(folder, adapter=tmp_path / "adapter", draft_model=None) as engine:
        adapted_print = engine.fingerprint(engine.config)
        text = engine.complete("hi", sampling=sampling).text
    with Engine(folder, draft_model=None) as engine:
        plain_print = engine.fingerprint(engine.config)
        assert engine.complete("hi", sampling=sampling).text != text
    assert {key for key in plain_print if plain_print[key] != adapted_print[key]} == {"model"}


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(folder: Path, change: Any) -> None:
    path = next(folder.glob("*.safetensors"))
    tensors: Any = dict(mx.load(str(path)))
    change(tensors)
    mx.eval(tensors)
    mx.save_safetensors(str(path), tensors)


def first(tensors: dict[str, mx.array], end: str) -> str:
    return next(name for name in tensors if name.endswith(end))


def cut(end: str):
    def change(tensors):
        name = first(tensors, end)
        tensors[name] = tensors[name][:-1]

    return change


def becomes(end: str, array: mx.array):
    return lambda tensors: tensors.update({first(tensors, end): array})


def halve(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


A, B = "lora_A.weight", "lora_B.weight"
TENSORS = {
    "of another size": (cut(A), "has lora_A of shape .* but rank 8"),
    "of another output": (cut(B), r"as a matrix of \[127, 128\], but in the"),
    "without B": (lambda tensors: tensors.pop(first(tensors, B)), "has lora_A, but lora_A, lora_B"),
    "with more": (lambda tensors: tensors.update({"evil": mx.ones(1)}), "holds evil, which is no part"),
    "with nan": (becomes(B, mx.full((128, 8), mx.nan)), "NaN"),
    "of integers": (becomes(B, mx.ones((128, 8), mx.int32)), "stored as I32"),
}
CONFIGS = {
    "of a rank": ({"r": 4}, "rank 4"),
    "of no rank": ({"r": 0}, "r must be a positive whole number, not 0"),
    "of no alpha": ({"lora_alpha": "big"}, "lora_alpha must be a number"),
    "of a kind": ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported"),
    "with bias": ({"bias": "all"}, "bias is 'all', which is not supported"),
    "with modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
    "with a pattern": ({"rank_pattern": {"(a+)+$": 3}}, "is a regular expression"),
    "dora without": ({"use_dora": True}, "lora_magnitude_vector belong to it"),
}
FILES = {
    "cut off": (halve, "damaged or cut off"),
    "gone": (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
    "no json": (lambda f: (f / "adapter_config.json").write_text("{"), "is not valid JSON"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("base") / "model"))


@pytest.mark.parametrize("case", [*TENSORS, *CONFIGS, *FILES])
def test_a_broken_adapter_is_refused_in_one_line(tmp_path, base, case):
    write_peft(tmp_path / "adapter")
    if case in TENSORS:
        change, problem = TENSORS[case]
        change_tensors(tmp_path / "adapter", change)
    elif case in CONFIGS:
        fields, problem = CONFIGS[case]
        change_config(tmp_path / "adapter", **fields)
    else:
        breaks, problem = FILES[case]
        breaks(tmp_path / "adapter")
    before = logits(base)
    with pytest.raises(CheckpointError, match=problem) as error:
        add_adapter(base, read_adapter(tmp_path / "adapter"), "the model")
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(logits(base), before)


def test_the_adapter_of_another_model(tmp_path, base):
    other = write_checkpoint(tmp_path / "other", DENSE | {"num_hidden_layers": 4})
    assert other
    write_byte_tokenizer(tmp_path / "other")
    train(tmp_path / "other", tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"adapts model.layers.* which the model does not have"):
        add_adapter(base, read_adapter(tmp_path / "adapter"), "the model")
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_adapter(tmp_path / "none")


FUSED = [
    ("dense", None, "lora"),
    ("moe", None, "lora"),
    ("dense", None, "dora"),
    ("dense", 8, "lora"),
    ("moe", 8, "lora"),
]


@pytest.mark.parametrize(("kind", "bits", "method"), FUSED)
def test_fused_equals_unfused(tmp_path, monkeypatch, kind, bits, method):
    monkeypatch.setattr(chunks, "chunk_bytes", lambda: 5_000)
    folder = write_model(tmp_path / "model", kind, bits)
    train(folder, tmp_path / "adapter", method)
    expected = logits(adapted(folder, tmp_path / "adapter"))
    report = convert(folder, tmp_path / "out", bits=None, dtype="float32", adapter=tmp_path / "adapter")
    np.testing.assert_allclose(
        logits(load_model(tmp_path / "out")), expected, atol=1e-4 if bits is None else 2e-3
    )
    assert report.verification is not None
    assert "With the adapter `adapter` fused" in (tmp_path / "out" / "README.md").read_text()


def test_fusing_into_a_quantized_model_says_the_loss(tmp_path):
    folder = write_model(tmp_path / "model", bits=8)
    train(folder, tmp_path / "adapter")
    report = convert(folder, tmp_path / "out", bits=8, group_size=32, adapter=tmp_path / "adapter")
    assert 0 < report.verification.error < 0.02
    assert report.verification.probe.kl < 0.05
    expected = logits(adapted(folder, tmp_path / "adapter"))
    assert np.abs(logits(load_model(tmp_path / "out")) - expected).max() < 1


def test_an_adapter_of_another_model_is_not_fused(tmp_path):
    folder = write_model(tmp_path / "model")
    write_checkpoint(tmp_path / "other", DENSE | {"intermediate_size": 320})
    write_byte_tokenizer(tmp_path / "other")
    train(tmp_path / "other", tmp_path / "adapter")
    with pytest.raises(
        CheckpointError, match=r"down_proj as a matrix of \[128, 320\], but in .* \[128, 256\]"
    ):
        convert(folder, tmp_path / "out", adapter=tmp_path / "adapter")
    assert not (tmp_path / "out").exists()


def test_the_command_runs_and_fuses_it(tmp_path):
    folder = write_model(tmp_path / "model")
    train(folder, tmp_path / "adapter")

    def text(*arguments: object) -> str:
        options = ["-p", "hi", "--max-tokens", "8", "--temperature", "0"]
        result = CliRunner().invoke(app, ["generate", *options, *map(str, arguments)])
        assert result.exit_code == 0, result.exception
        return result.stdout

    adapted_text = text("--model", folder, "--adapter", tmp_path / "adapter")
    fused = ["convert", folder, "-o", tmp_path / "fused", "--bits", 16, "--adapter", tmp_path / "adapter"]
    assert CliRunner().invoke(app, [str(argument) for argument in fused]).exit_code == 0
    assert text("--model", tmp_path / "fused") == adapted_text != text("--model", folder)
