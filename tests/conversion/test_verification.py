"""Every difference from the source is found and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, read_tensors, write_checkpoint
from typer.testing import CliRunner

import mlx_qwen3.conversion.source.chunks
import mlx_qwen3.conversion.verification.probe
from mlx_qwen3 import load_model
from mlx_qwen3.cli.app import app
from mlx_qwen3.conversion import convert, verify
from mlx_qwen3.conversion.source.open import open_folder
from mlx_qwen3.conversion.verification.probe import predictions, probe, probe_ids
from mlx_qwen3.conversion.verification.streamed_model import streamed_model
from mlx_qwen3.conversion.write.shard_writer import ShardWriter
from mlx_qwen3.errors import CheckpointError, ConversionError

Tensors = dict[str, mx.array]
INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj"
GATE = "model.layers.1.mlp.gate_proj"
EXPERTS = "model.layers.2.mlp.switch_mlp.down_proj"
KINDS = {"dense": DENSE, "moe": MOE}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(mlx_qwen3.conversion.source.chunks, "chunk_bytes", lambda: 30_000)


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """Sources and their 4-bit conversions, not to be written to."""
    folder = tmp_path_factory.mktemp("converted")
    for name, raw in KINDS.items():
        write_byte_tokenizer(folder / name)
        write_checkpoint(folder / name, raw)
        convert(folder / name, folder / f"{name}-4bit")
    return folder


def mutated(
    converted: Path, tmp_path: Path, change: Callable[[Tensors], object], kind: str = "dense"
) -> Path:
    """A copy of a conversion, with `change` applied to its tensors, and without its SHA256SUMS."""
    folder = Path(shutil.copytree(converted / f"{kind}-4bit", tmp_path / "made"))
    tensors = read_tensors(folder)
    change(tensors)
    (folder / "SHA256SUMS").unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})
    return folder


def swap(a: str, b: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for leaf in ("weight", "scales", "biases"):
            x, y = f"{a}.{leaf}", f"{b}.{leaf}"
            tensors[x], tensors[y] = tensors[y], tensors[x]

    return change


def scale(path: str, factor: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for leaf in ("scales", "biases"):
            tensors[f"{path}.{leaf}"] = tensors[f"{path}.{leaf}"] * factor

    return change


def put(name: str, place: Any, value: Any) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        array = np.array(tensors[name])
        array[place] = value
        tensors[name] = mx.array(array)

    return change


def shift_rows(tensors: Tensors) -> None:
    for leaf in ("weight", "scales", "biases"):
        tensors[f"{EXPERTS}.{leaf}"] = mx.roll(tensors[f"{EXPERTS}.{leaf}"], 1, axis=0)


MUTATIONS: dict[str, tuple[str, Callable[[Tensors], object], str]] = {
    "two matrices swapped": ("dense", swap(UP, GATE), f"{GATE}.weight|{UP}.weight"),
    "scaled": ("dense", scale(UP, 1.05), f"{UP}.weight is 1.0[45]. times"),
    "scaled down": ("moe", scale(EXPERTS, 0.95), f"{EXPERTS}.weight is 0.9[45]. times"),
    "negated": ("dense", scale(UP, -1), f"{UP}.weight is -[01].* times"),
    "a row zeroed": ("dense", put(f"{UP}.weight", 77, 0), f"{UP}.weight row 77"),
    "one scale lost": ("dense", put(f"{UP}.scales", (200, 1), 0), f"{UP}.weight row 200"),
    "one scale not a number": ("dense", put(f"{UP}.scales", (3, 0), np.nan), f"{UP}.weight holds NaN"),
    "one bias": ("dense", put(f"{UP}.biases", (9, 0), 3.0), f"{UP}.weight row 9"),
    "codes of eight weights": ("dense", put(f"{UP}.weight", (5, 3), 0), f"{UP}.weight row 5"),
    "a norm's number": ("dense", put("model.norm.weight", 17, 1.5), "model.norm.weight is not its source"),
    "experts in another order": ("moe", shift_rows, f"{EXPERTS}.weight"),
    "one row of one expert": ("moe", put(f"{EXPERTS}.weight", (3, 127), 0), f"{EXPERTS}.weight row 511"),
    "embedding": ("moe", put("model.embed_tokens.weight", 299, 0), r"embed_tokens.weight row 299"),
}


@pytest.mark.parametrize("case", MUTATIONS)
def test_a_mutation_is_found_and_named(converted, tmp_path, case):
    kind, change, message = MUTATIONS[case]
    folder = mutated(converted, tmp_path, change, kind)
    with pytest.raises(ConversionError, match=message) as caught:
        verify(folder, converted / kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_conversion_is_measured(converted, kind):
    found = verify(converted / f"{kind}-4bit", converted / kind)
    assert found.has_checksums
    assert {tensor.name for tensor in found.tensors} > {"model.norm.weight", "model.embed_tokens.weight"}
    assert all(tensor.identical for tensor in found.tensors)
    assert 0.07 < found.error < 0.11
    assert found.worst is not None
    assert found.worst.error >= found.error
    assert found.probe is not None
    assert found.probe.kl > 0
    assert found.probe.tokens == 192


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 2, "group_size": 32},
        {"bits": 3},
        {"bits": 5},
        {"bits": 6, "group_size": 128},
        {"bits": 8},
        {"bits": 8, "dtype": "float16"},
        {"mode": "mxfp4"},
        {"mode": "mxfp8", "bits": 8},
        {"mode": "nvfp4", "dtype": "bfloat16"},
        {"bits": None},
        {"bits": None, "dtype": "bfloat16"},
    ],
    ids=str,
)
def test_every_format_passes(converted, tmp_path, settings):
    found = convert(converted / "moe", tmp_path / "out", **settings).verification
    assert found is not None
    bits = settings.get("bits", 4)
    assert found.error <= {2: 0.5, 3: 0.2, 4: 0.15, 5: 0.06, 6: 0.03, 8: 0.03, None: 0.003}[bits]
    assert (found.error == 0) == (settings == {"bits": None})


def test_a_conversion_measures_what_verify_measures(converted, tmp_path):
    report = convert(converted / "moe", tmp_path / "out")
    assert report.verification == verify(tmp_path / "out", converted / "moe")


def test_the_error_equals_numpys(converted):
    found = verify(converted / "dense-4bit", converted / "dense")
    made, original = read_tensors(converted / "dense-4bit"), read_tensors(converted / "dense")
    weight, scales, biases = (made[f"{UP}.{leaf}"] for leaf in ("weight", "scales", "biases"))
    expected = np.array(original[f"{UP}.weight"])
    difference = np.array(mx.dequantize(weight, scales, biases)) - expected
    [check] = [tensor for tensor in found.tensors if tensor.name == f"{UP}.weight"]
    assert check.error == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(expected), rel=1e-4)
    assert check.norm == pytest.approx(np.linalg.norm(expected), rel=1e-4)


def test_rounding_of_another_kind_passes(converted, tmp_path):
    """Codes that a recipe moved to reduce the error are not a fault."""

    def narrow(tensors: Tensors) -> None:
        original = read_tensors(converted / "dense")[f"{UP}.weight"].reshape(-1, 64)
        low, high = original.min(axis=-1, keepdims=True) * 0.9, original.max(axis=-1, keepdims=True) * 0.9
        step = (high - low) / 15
        codes = mx.clip(mx.round((original - low) / step), 0, 15).astype(mx.uint32)
        packed = (codes.reshape(-1, 8) << (4 * mx.arange(8, dtype=mx.uint32))).sum(axis=-1)
        tensors[f"{UP}.weight"] = packed.reshape(256, 16).astype(mx.uint32)
        tensors[f"{UP}.scales"], tensors[f"{UP}.biases"] = step.reshape(256, 2), low.reshape(256, 2)

    found = verify(mutated(converted, tmp_path, narrow), converted / "dense")
    assert [tensor.name for tensor in found.tensors if not tensor.identical] == [f"{UP}.weight"]


class TestFiles:
    @pytest.fixture
    def made(self, converted, tmp_path) -> Path:
        return Path(shutil.copytree(converted / "dense-4bit", tmp_path / "made"))

    def refuse(self, made: Path, message: str, source: Path | None = None) -> None:
        with pytest.raises((ConversionError, CheckpointError), match=message) as caught:
            verify(made, source)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("source", [True, False])
    def test_a_single_bit_is_found(self, converted, made, source):
        file = made / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-5000] ^= 1
        file.write_bytes(content)
        self.refuse(
            made,
            "model.safetensors has changed since it was written",
            converted / "dense" if source else None,
        )

    def test_sums_are_those_of_coreutils(self, made):
        assert os.system(f"cd {made} && sha256sum --quiet -c SHA256SUMS") == 0

    def test_a_file_that_went_missing(self, made):
        (made / "tokenizer.json").unlink()
        self.refuse(made, "tokenizer.json is missing")

    def test_a_cut_off_file(self, made):
        os.truncate(made / "model.safetensors", 50_000)
        self.refuse(made, "model.safetensors is damaged or cut off")

    def test_a_tensor_in_another_place_than_the_index_says(self, made):
        self.edit(
            made / "model.safetensors.index.json",
            lambda index: index["weight_map"].update({"x": "y.safetensors"}),
        )
        self.refuse(made, "y.safetensors")

    def test_an_index_that_does_not_add_up(self, made):
        (made / "SHA256SUMS").unlink()
        self.edit(
            made / "model.safetensors.index.json", lambda index: index["metadata"].update({"total_size": 7})
        )
        self.refuse(made, "says 7 bytes")

    def test_a_config_of_another_model(self, converted, made):
        (made / "SHA256SUMS").unlink()
        self.edit(made / "config.json", lambda raw: raw.update({"rope_theta": 5e5}))
        assert not verify(made).has_checksums
        self.refuse(made, "config.json has rope_theta 500000.0, its source 1000000.0", converted / "dense")

    def test_nan_without_a_source(self, converted, tmp_path):
        folder = mutated(converted, tmp_path, put(f"{UP}.scales", (3, 0), np.nan))
        self.refuse(folder, f"{UP}.weight holds NaN or infinity")

    def test_the_source_of_another_model(self, converted, made):
        self.refuse(made, "its source", converted / "moe")

    def test_a_broken_list_of_sums(self, made):
        (made / "SHA256SUMS").write_text("abc  ../../etc/passwd\n")
        self.refuse(made, "is not a list of checksums")

    def edit(self, file: Path, change: Callable[[dict], object]) -> None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


class TestDuringConversion:
    def test_a_disk_that_loses_bits_is_noticed(self, converted, tmp_path, monkeypatch):
        write = ShardWriter.write

        def lossy(self: ShardWriter, name: str, data: memoryview) -> None:
            write(self, name, memoryview(bytes(len(data))) if name == f"{UP}.weight" else data)

        monkeypatch.setattr(ShardWriter, "write", lossy)
        with pytest.raises(ConversionError, match=f"{UP}.weight .* as read back from the disk"):
            convert(converted / "dense", tmp_path / "out")
        assert not list(tmp_path.iterdir())
        assert convert(converted / "dense", tmp_path / "out", verify=False).verification is None

    def test_the_card_states_the_errors(self, converted):
        found = verify(converted / "dense-4bit", converted / "dense")
        card = (converted / "dense-4bit" / "README.md").read_text()
        assert found.probe is not None
        assert f"{found.error:.2%}" in card
        assert f"{found.probe.kl:.4f} nats" in card
        assert f"{found.probe.top1:.1%}" in card

    @pytest.mark.cpu_only(reason="a GPU's memory comes in pages, and is held while it computes")
    def test_memory_holds_chunks(self, tmp_path, monkeypatch):
        write_checkpoint(tmp_path / "source", DENSE | {"intermediate_size": 8192})
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        monkeypatch.setattr(mlx_qwen3.conversion.verification.probe, "MAX_TOKENS", 4)
        assert convert(tmp_path / "source", tmp_path / "out").num_parameters > 6_000_000
        assert mx.get_peak_memory() - before < 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_streamed_model_predicts_what_one_in_memory_predicts(converted, kind):
    for folder in (converted / kind, converted / f"{kind}-4bit"):
        original = open_folder(folder)
        ids = probe_ids(folder, original.config.vocab_size)
        expected = np.array(load_model(folder)(mx.array([ids]))[0])
        np.testing.assert_allclose(predictions(original.tensors, original.config, ids), expected, atol=2e-3)
        assert streamed_model(original.tensors, original.config)


def test_of_a_large_vocabulary_every_so_many_predictions_are_compared(converted, monkeypatch):
    original, made = open_folder(converted / "dense"), open_folder(converted / "dense-4bit")
    ids = probe_ids(made.path, made.config.vocab_size)
    monkeypatch.setattr(
        mlx_qwen3.conversion.verification.probe, "MAX_LOGITS", made.config.vocab_size * len(ids) // 3
    )
    found = probe(made.tensors, original.tensors, made.config, made.path)
    p, q = (
        np.array(nn.log_softmax(predictions(side.tensors, side.config, ids)), np.float64)[2::3]
        for side in (original, made)
    )
    assert found.tokens == len(p) == 64
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(axis=-1).mean(), rel=1e-3)
    assert found.top1 == (p.argmax(axis=-1) == q.argmax(axis=-1)).mean()


class TestCommand:
    def run(self, *arguments: str | Path) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def test_with_and_without_a_source(self, converted):
        made = converted / "dense-4bit"
        alone, both = self.run("verify", made), self.run("verify", made, "--source", converted / "dense")
        assert alone.exit_code == both.exit_code == 0
        assert "files as written" in alone.output
        assert "give --source" in alone.output
        assert "tensors compared, relative error 9." in both.output.replace("8.9", "9.")
        assert both.output.count("\n") == 1

    @pytest.mark.parametrize("command", ["convert", "verify"])
    def test_a_report(self, converted, tmp_path, command):
        page = tmp_path / "report.html"
        made = converted / "moe-4bit" if command == "verify" else tmp_path / "out"
        source = ["--source", converted / "moe"] if command == "verify" else ["-o", made]
        done = self.run(
            command, made if command == "verify" else converted / "moe", *source, "--report", page
        )
        assert done.exit_code == 0, done.output
        text = page.read_text()
        assert text.startswith("<!doctype html>")
        assert text.count("<td class") == sum(name.endswith(".scales") for name in read_tensors(made))
        assert "model.layers.2.mlp.switch_mlp.up_proj.weight: " in text

    def test_a_report_that_cannot_be_written_is_reported_first(self, converted, tmp_path):
        for name in ("report.png", "nowhere/report.html"):
            done = self.run(
                "convert", converted / "dense", "-o", tmp_path / "out", "--report", tmp_path / name
            )
            assert isinstance(done.exception, ConversionError)
        done = self.run(
            "convert", converted / "dense", "-o", tmp_path / "out", "--no-verify", "--report", "a.html"
        )
        assert done.exit_code == 2
        assert not (tmp_path / "out").exists()
