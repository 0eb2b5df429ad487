"""Calibrated conversions: the moments equal those of the running model, and the errors of outputs shrink."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx_qwen3  # noqa: F401  # before mlx.core, so that it can bring a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np
import pytest
from conversion.test_search import dequantized, heavy_tailed
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, logits, write_checkpoint
from typer.testing import CliRunner

from mlx_qwen3 import convert, load_model
from mlx_qwen3.checkpoint.safetensors_files import stored_tensors
from mlx_qwen3.cli.app import app
from mlx_qwen3.conversion import plan
from mlx_qwen3.conversion.estimate import estimated_seconds
from mlx_qwen3.conversion.quantize import activations as recording
from mlx_qwen3.conversion.quantize.activations import Activations
from mlx_qwen3.conversion.quantize.bit_allocation import (
    WIDTHS,
    Sensitivity,
    allocate_by,
    measure_sensitivities,
)
from mlx_qwen3.conversion.quantize.gptq import factorize, quantize_gptq
from mlx_qwen3.conversion.quantize.search import quantize_searched
from mlx_qwen3.conversion.write.ledger import plan_digest
from mlx_qwen3.errors import CheckpointError, ConversionError
from mlx_qwen3.model.config import Quantization, read_json

UNTIED = DENSE | {"tie_word_embeddings": False}
TEXT = "The quick brown fox jumps over the lazy dog, and 12 + 30 = 42. " * 12


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def checkpoint(folder: Path, raw: dict[str, Any]) -> Path:
    write_checkpoint(write_byte_tokenizer(folder), raw)
    return folder


def correlated(rows: int, width: int) -> np.ndarray:
    """Inputs whose columns are correlated, as those of hidden states are."""
    random = np.random.default_rng(3)
    mixed = random.standard_normal((rows, width // 4)) @ random.standard_normal((width // 4, width))
    return (mixed + 0.3 * random.standard_normal((rows, width))).astype(np.float32)


@pytest.mark.parametrize(("bits", "group_size", "block"), [(4, 64, 1024), (3, 32, 128), (2, 64, 192)])
def test_outputs_err_less_with_gptq(bits, group_size, block):
    weight = mx.array(heavy_tailed(48, 320)).astype(mx.bfloat16)
    x = correlated(2000, 320)
    blocks = [x[:, start : start + block] for start in range(0, 320, block)]
    factors = factorize([mx.array(part.T @ part / len(x)) for part in blocks])

    def error(parts):
        return (
            (x @ (dequantized(parts, bits, group_size) - np.array(weight.astype(mx.float32))).T) ** 2
        ).sum()

    quantization = Quantization(bits, group_size)
    searched = error(quantize_searched(weight, quantization))
    assert error(quantize_gptq(weight, quantization, factors)) < 0.75 * searched


def test_without_correlation_gptq_is_the_search():
    weight = mx.array(heavy_tailed(16, 128)).astype(mx.bfloat16)
    factors = factorize([mx.eye(128)])
    expected = quantize_searched(weight, Quantization(4, 64))
    for ours, theirs in zip(quantize_gptq(weight, Quantization(4, 64), factors), expected, strict=True):
        assert mx.array_equal(ours, theirs)


@pytest.mark.parametrize("raw", [DENSE, UNTIED, MOE], ids=["tied", "untied", "moe"])
def test_moments_are_those_of_the_running_model(tmp_path, text, raw, monkeypatch):
    monkeypatch.setattr(recording, "BLOCK", 96)  # several blocks to a matrix, the last one smaller
    todo = plan(checkpoint(tmp_path / "a", raw), calibrate=text, group_size=32)
    assert todo.calibration is not None
    seen: dict[str, list[np.ndarray]] = {}
    model = load_model(tmp_path / "a")
    for path, module in model.named_modules():
        if hasattr(module, "weight") and module.weight.ndim > 1:
            _spy(module, seen.setdefault(path, []))
    model(mx.array(todo.calibration.windows))
    measured = Activations(todo, todo.calibration)
    count = 0
    for step in todo.steps:
        path = step.name.rpartition(".")[0]
        if step.quantization is None or (path == "model.embed_tokens" and not raw["tie_word_embeddings"]):
            assert measured.recorder(step) is None
            continue
        x = np.concatenate(seen[path])
        expected = x.T @ x / len(x)
        recorder = measured.recorder(step)
        assert recorder is not None
        for start, block in zip(range(0, x.shape[1], 96), recorder.moments, strict=True):
            columns = slice(start, start + 96)
            np.testing.assert_allclose(np.array(block), expected[columns, columns], rtol=1e-3, atol=1e-4)
        count += 1
    assert count >= 14


def _spy(module: Any, seen: list[np.ndarray]) -> None:
    """Record the inputs of `module`."""
    name = "as_linear" if hasattr(module, "as_linear") else "__call__"
    kind = type(module)

    def call(self: Any, x: mx.array, *rest: Any) -> mx.array:
        seen.append(np.array(x).reshape(-1, x.shape[-1]))
        return getattr(kind, name)(self, x, *rest)

    module.__class__ = type(kind.__name__, (kind,), {name: call})


@pytest.mark.parametrize("raw", [DENSE, MOE], ids=["dense", "moe"])
def test_a_calibrated_checkpoint_loads_in_both(tmp_path, text, raw):
    from mlx_lm.utils import load_model as mlx_lm_load

    source = checkpoint(tmp_path / "source", raw)
    convert(source, tmp_path / "out", calibrate=text, group_size=32, verify=False)
    expected = logits(mlx_lm_load(tmp_path / "out")[0])
    np.testing.assert_allclose(logits(load_model(tmp_path / "out")), expected, atol=1e-4)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Recipe `searched`" in card
    assert "Calibrated on 512 tokens" in card
    assert "text.txt" not in card  # the name of the file is private


def test_layers_that_are_finished_are_only_run_through(tmp_path, text):
    """As after a kill: finished matrices are not asked for again."""
    todo = plan(checkpoint(tmp_path / "source", DENSE), calibrate=text)
    assert todo.calibration is not None
    assert todo.steps[-1].name == "model.embed_tokens.weight"  # what it sees is known last
    whole, resumed = (Activations(todo, todo.calibration) for _ in range(2))
    for step in todo.steps:
        first = whole.recorder(step)
        if first is not None and "layers.0" not in step.name:
            second = resumed.recorder(step)
            assert second is not None
            assert all(mx.array_equal(*blocks) for blocks in zip(first.moments, second.moments, strict=True))


def test_the_same_text_gives_the_same_bytes_and_another_starts_over(tmp_path, text):
    source = checkpoint(tmp_path / "source", DENSE)
    for name in ("a", "b"):
        convert(source, tmp_path / name, calibrate=text, verify=False)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()
    before = plan_digest(plan(source, calibrate=text))
    text.write_text(TEXT.replace("fox", "hen"))
    assert len({before, plan_digest(plan(source, calibrate=text)), plan_digest(plan(source))}) == 3


def test_a_target_is_met_and_recorded(tmp_path, text):
    source = checkpoint(tmp_path / "source", UNTIED)
    sizes = []
    for target in (3.6, 5.0, 6.5):
        report = convert(source, tmp_path / f"{target}", calibrate=text, target_bpw=target, dtype="bfloat16")
        assert target - 0.6 < report.bits_per_weight <= target
        sizes.append(report.total_size)
        config = read_json(tmp_path / f"{target}" / "config.json")["quantization"]
        assert len({layer["bits"] for layer in config.values() if isinstance(layer, dict)}) > 1
        load_model(tmp_path / f"{target}")
    assert sizes == sorted(sizes)


def test_bits_go_where_they_save_most(tmp_path, text):
    todo = plan(checkpoint(tmp_path / "source", UNTIED))
    size = {bits: 1000 * bits for bits in WIDTHS}
    costs = {bits: 4.0**-bits for bits in WIDTHS}
    measured = {
        "much": Sensitivity({bits: 100 * cost for bits, cost in costs.items()}, size),
        "little": Sensitivity(costs, size),
    }
    plain = sum(step.output_bytes * 8 for step in todo.steps)
    target = (plain + 2 * 4000) / todo.num_parameters
    bits = allocate_by(measured, todo, target)
    assert bits["much"] > bits["little"]
    assert sum(bits.values()) <= 8


def test_sensitivity_falls_with_width(tmp_path, text):
    todo = plan(checkpoint(tmp_path / "source", MOE), calibrate=text, group_size=32)
    assert todo.calibration is not None
    found = measure_sensitivities(todo, todo.calibration)
    assert "model.layers.0.mlp.gate" not in found  # a router keeps its eight bits
    assert {"lm_head", "model.embed_tokens", "model.layers.1.mlp.down_proj"} < set(found)
    for layer in found.values():
        costs = [layer.cost[bits] for bits in WIDTHS]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] > 0


def test_a_dry_run_counts_the_calibration(tmp_path, text):
    source = checkpoint(tmp_path / "source", DENSE)
    assert estimated_seconds(plan(source, calibrate=text)) > estimated_seconds(plan(source))
    arguments = [str(source), "-o", str(tmp_path / "out"), "--calibrate", str(text), "--dry-run"]
    done = CliRunner().invoke(app, ["convert", *arguments])
    assert done.exit_code == 0
    assert "nothing was written" in done.output
    assert not (tmp_path / "out").exists()


def test_conversations(tmp_path):
    source = checkpoint(tmp_path / "source", DENSE)
    lines = [
        {"messages": [{"role": "user", "content": "Hello" * 20}, {"role": "assistant", "content": "Hi"}]},
        {"text": "Some text <|im_end|>" * 10},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    todo = plan(source, calibrate=tmp_path / "a.jsonl")
    assert todo.calibration is not None
    assert todo.calibration.windows.shape[0] == 1
    assert todo.calibration.windows.max() < 300


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_of_conversations_end_at_line_feeds_alone(tmp_path, mark):
    """JSON strings may hold U+2028, U+0085 and others that `str.splitlines` takes for ends of lines."""
    source = checkpoint(tmp_path / "source", DENSE)
    texts = ["one\u2028two\x85three\u2029" * 40, "next\x7f" * 80]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "a.jsonl").write_bytes((mark + "\r\n".join(lines) + "\n").encode())
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    first, second = (plan(source, calibrate=tmp_path / name).calibration for name in ("a.jsonl", "b.jsonl"))
    assert first is not None
    assert second is not None
    assert first.digest == second.digest


def test_a_text_may_begin_with_a_byte_order_mark(tmp_path):
    source = checkpoint(tmp_path / "source", DENSE)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + b"Hello world\r\n" * 40)
    (tmp_path / "b.txt").write_bytes(b"Hello world\n" * 40)
    first, second = (plan(source, calibrate=tmp_path / name).calibration for name in ("a.txt", "b.txt"))
    assert first is not None
    assert second is not None
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "none.txt could not be read: No such file"),
        ("short.txt", b"too short", "holds 9 tokens; calibration needs 256 or more"),
        ("bytes.txt", b"\xff\xfe\x00" * 200, "bytes.txt is not text in UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": 1}', r"a.jsonl, line 2: a line must be \{"),
        ("b.jsonl", b"[1,", "b.jsonl, line 1: "),
        ("c.jsonl", b'{"messages": [{"role": "sorcerer", "content": ""}]}', "c.jsonl, line 1: "),
    ],
)
def test_texts_that_cannot_be_used(tmp_path, name, content, message):
    source = checkpoint(tmp_path / "source", DENSE)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        convert(source, tmp_path / "out", calibrate=tmp_path / name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"target_bpw": 4.5},
            r"needs a text to measure on; try calibrate=\.\.\.",
        ),
        ({"target_bpw": 4.5, "recipe": "mixed", "calibrate": True}, "mixed chooses bits itself"),
        ({"target_bpw": 1, "calibrate": True}, "1 bits per weight cannot be reached; give"),
        ({"target_bpw": 40, "calibrate": True}, "40 bits per weight cannot be reached; give"),
        ({"recipe": "plain", "calibrate": True}, "plain makes no use of a calibration"),
        ({"mode": "mxfp4", "calibrate": True}, "searched is for affine quantization, not for mxfp4"),
    ],
)
def test_settings_that_contradict(tmp_path, text, settings, message):
    source = checkpoint(tmp_path / "source", DENSE)
    if "calibrate" in settings:
        settings = settings | {"calibrate": text}
    with pytest.raises(ConversionError, match=message):
        convert(source, tmp_path / "out", **settings)


def test_names_are_all_there(tmp_path, text):
    convert(checkpoint(tmp_path / "source", MOE), tmp_path / "out", calibrate=text, verify=False)
    convert(tmp_path / "source", tmp_path / "plain", verify=False)
    assert stored_tensors(tmp_path / "out").keys() == stored_tensors(tmp_path / "plain").keys()


def test_weights_that_were_on_a_grid_may_be_moved_off_it(tmp_path, text):
    source = checkpoint(tmp_path / "source", DENSE | {"torch_dtype": "bfloat16"})
    convert(source, tmp_path / "small")
    convert(tmp_path / "small", tmp_path / "back", dequantize=True)
    report = convert(tmp_path / "back", tmp_path / "again", calibrate=text)
    assert report.verification is not None
    assert not [check for check in report.verification.tensors if check.fault]


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_weights_that_are_not_finite(tmp_path, text, name):
    source = checkpoint(tmp_path / "source", DENSE)
    tensors = mx.load(str(source / "model.safetensors"))
    tensors[name][:, 3] = mx.nan
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        convert(source, tmp_path / "out", calibrate=text)
    assert not (tmp_path / "out").exists()


def test_activations_that_overflow():
    with pytest.raises(ConversionError, match="activations overflow"):
        factorize([mx.full((64, 64), mx.inf)])
