"""Our conversion writes the bytes that mlx_lm.convert writes, and mlx-lm runs them with the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, logits, read_tensors, write_checkpoint
from typer.testing import CliRunner

import mlx_qwen3.conversion.source.chunks as chunks
import mlx_qwen3.conversion.source.open
from mlx_qwen3 import load_model
from mlx_qwen3.cli.app import app
from mlx_qwen3.cli.output import program
from mlx_qwen3.conversion import Progress, Report, convert, plan, verify
from mlx_qwen3.errors import ConversionError
from mlx_qwen3.model.config import ModelConfig, read_json

UNTIED = DENSE | {"tie_word_embeddings": False}
CASES = {
    "dense-4": (DENSE, {}),
    "dense-8-32": (DENSE, {"bits": 8, "group_size": 32}),
    "dense-3-128": (UNTIED, {"bits": 3, "group_size": 128}),
    "untied-6": (UNTIED, {"bits": 6}),
    "moe-4": (MOE, {}),
    "moe-2-32": (MOE | {"tie_word_embeddings": True}, {"bits": 2, "group_size": 32}),
    "moe-5": (MOE, {"bits": 5, "group_size": 64}),
    "moe-mxfp4": (MOE, {"mode": "mxfp4"}),
    "dense-mxfp8": (DENSE, {"mode": "mxfp8", "bits": 8}),
    "dense-nvfp4": (DENSE, {"mode": "nvfp4"}),
    "dense-bf16": (DENSE, {"bits": None, "dtype": "bfloat16"}),
    "dense-fp16-scales": (DENSE, {"dtype": "float16"}),
    "moe-as-its-config-says": (MOE | {"torch_dtype": "bfloat16"}, {}),
    "dense-as-stored": (DENSE | {"dtype": "float16"}, {}),  # mlx-lm goes by torch_dtype alone
    "rows-no-group-divides": (DENSE | {"hidden_size": 96}, {}),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Tensors of a few KB come in several chunks, as real ones do."""
    monkeypatch.setattr(chunks, "chunk_bytes", lambda: 10_000)


@pytest.fixture
def source(tmp_path) -> Path:
    write_byte_tokenizer(tmp_path / "source")
    write_checkpoint(tmp_path / "source", DENSE)
    return tmp_path / "source"


def mlx_lm_convert(source: Path, output: Path, settings: dict[str, Any]) -> None:
    """Convert `source` with mlx-lm, with the options of our `convert`."""
    from mlx_lm.convert import convert as theirs

    bits = settings.get("bits", 4)
    options = {
        "q_bits": bits,
        "q_group_size": settings.get("group_size"),
        "q_mode": settings.get("mode", "affine"),
    }
    theirs(str(source), str(output), quantize=bits is not None, dtype=settings.get("dtype"), **options)


@pytest.mark.parametrize("case", CASES)
def test_tensors_are_those_of_mlx_lm(tmp_path, case):
    raw, settings = CASES[case]
    source = write_byte_tokenizer(tmp_path / "source")
    write_checkpoint(source, raw, mx.bfloat16 if "stored" in case else mx.float32)
    mlx_lm_convert(source, tmp_path / "theirs", settings)
    convert(source, tmp_path / "ours", **settings)
    theirs, ours = read_tensors(tmp_path / "theirs"), read_tensors(tmp_path / "ours")
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert mx.array_equal(ours[name], array), name
    index = "model.safetensors.index.json"
    assert read_json(tmp_path / "ours" / index) == read_json(tmp_path / "theirs" / index)


@pytest.mark.parametrize("case", ["dense-4", "untied-6", "moe-4", "moe-mxfp4", "rows-no-group-divides"])
def test_both_load_the_conversions_of_each(tmp_path, case):
    from mlx_lm.utils import load_model as mlx_lm_load

    raw, settings = CASES[case]
    source = write_byte_tokenizer(tmp_path / "source")
    write_checkpoint(source, raw)
    mlx_lm_convert(source, tmp_path / "theirs", settings)
    convert(source, tmp_path / "ours", **settings)
    expected = logits(mlx_lm_load(tmp_path / "theirs")[0])
    np.testing.assert_allclose(logits(mlx_lm_load(tmp_path / "ours")[0]), expected, atol=1e-4)
    np.testing.assert_allclose(logits(load_model(tmp_path / "theirs")), expected, atol=1e-4)
    np.testing.assert_allclose(logits(load_model(tmp_path / "ours")), expected, atol=1e-4)


def test_routers_keep_eight_bits(tmp_path):
    write_checkpoint(tmp_path / "source", MOE)
    convert(tmp_path / "source", tmp_path / "out", bits=2)
    config = ModelConfig.from_file(tmp_path / "out" / "config.json")
    assert config.quantization is not None
    assert {path: layer.bits for path, layer in config.quantization.overrides.items()} == {
        "model.layers.0.mlp.gate": 8,
        "model.layers.2.mlp.gate": 8,
    }


def test_shards_hold_a_layer_together_and_load(source, tmp_path):
    report = convert(source, tmp_path / "out", max_shard_bytes=60_000)
    names = {file.name for file in (tmp_path / "out").glob("*.safetensors")}
    assert report.num_files == len(names) > 2
    assert names == {f"model-{i + 1:05d}-of-{len(names):05d}.safetensors" for i in range(len(names))}
    places = read_json(tmp_path / "out" / "model.safetensors.index.json")["weight_map"]
    scales = [name for name in places if name.endswith(".scales")]
    assert scales
    assert all(places[name] == places[name.replace(".scales", ".weight")] for name in scales)
    convert(source, tmp_path / "whole")
    assert (logits(load_model(tmp_path / "out")) == logits(load_model(tmp_path / "whole"))).all()


def test_a_sharded_source_gives_the_same(source, tmp_path):
    write_checkpoint(tmp_path / "sharded", DENSE, shards=3)
    convert(tmp_path / "sharded", tmp_path / "a")
    convert(source, tmp_path / "b")
    a, b = (tmp_path / name / "model.safetensors" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.cpu_only(reason="a GPU's memory comes in pages, and is held while it computes")
def test_memory_holds_a_chunk_not_a_model(tmp_path):
    write_checkpoint(tmp_path / "source", DENSE | {"vocab_size": 20_000})
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    report = convert(tmp_path / "source", tmp_path / "out", bits=8, verify=False)
    assert report.total_size > 2_500_000
    assert mx.get_peak_memory() - before < 200_000


def test_the_plan_knows_sizes_ahead(source, tmp_path):
    steps: list[Progress] = []
    expected = plan(source, bits=8, group_size=32)
    report = convert(source, tmp_path / "out", bits=8, group_size=32, on_progress=steps.append)
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert expected.total_size == report.total_size == len(content) - header
    assert expected.bits_per_weight == report.bits_per_weight == report.total_size * 8 / report.num_parameters
    for stage in ("converting", "checking", "probing"):
        done = [step.done_bytes for step in steps if step.stage == stage]
        assert done == sorted(done)
        total = {step.total_bytes for step in steps if step.stage == stage}
        assert total == {done[-1]}
    assert steps[-1].total_bytes > steps[0].total_bytes == expected.source_size
    assert steps[0].tensor == "model.embed_tokens.weight"


def test_every_tensor_starts_at_a_multiple_of_its_numbers(tmp_path):
    from mlx_qwen3.backend.safetensors_io import DTYPES
    from mlx_qwen3.checkpoint.safetensors_files import tensors_in

    # 301 rows of 3 groups: an odd number of one-byte scales.
    write_checkpoint(tmp_path / "source", DENSE | {"hidden_size": 96, "vocab_size": 301})
    convert(tmp_path / "source", tmp_path / "out", mode="mxfp4")
    for tensor in tensors_in(tmp_path / "out" / "model.safetensors"):
        assert tensor.offset % DTYPES[tensor.dtype].size == 0


def test_a_tensor_short_of_its_planned_size_is_noticed(tmp_path):
    from mlx_qwen3.conversion.planning import OutputTensor
    from mlx_qwen3.conversion.write.shard_writer import ShardWriter

    writer = ShardWriter(tmp_path / "model.safetensors", [OutputTensor("a", (3, 5), mx.uint32)])
    writer.write("a", memoryview(bytes(59)))
    with pytest.raises(ConversionError, match="a came out -1 bytes of its planned size"):
        writer.close()


class TestFilesBesides:
    @pytest.fixture
    def output(self, source, tmp_path) -> Path:
        (source / "generation_config.json").write_text('{"temperature": 0.6}')
        (source / "merges.txt").write_text("#version")
        (source / "LICENSE").write_text("Apache")
        (source / "modeling.py").write_text("raise SystemExit")
        (source / "optimizer.pt").write_bytes(b"")
        convert(source, tmp_path / "tiny-4bit")
        return tmp_path / "tiny-4bit"

    def test_carried_over(self, source, output):
        carried = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]
        for name in (*carried, "merges.txt", "LICENSE"):
            assert (output / name).read_bytes() == (source / name).read_bytes()
        written = {
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "README.md",
            "SHA256SUMS",
        }
        assert {file.name for file in output.iterdir()} == {*carried, "merges.txt", "LICENSE", *written}

    def test_the_tokenizer_and_template_work(self, output):
        from mlx_qwen3 import load_tokenizer

        messages = [{"role": "user", "content": "hi"}]
        assert load_tokenizer(output).apply_chat_template(messages)

    def test_config(self, source, output):
        raw = read_json(output / "config.json")
        settings = {"bits": 4, "group_size": 64, "mode": "affine"}
        assert raw["quantization"] == raw["quantization_config"] == settings
        kept = {key: value for key, value in raw.items() if not key.startswith("quantization")}
        assert kept == read_json(source / "config.json")

    def test_card(self, output):
        card = (output / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: mlx\n")
        assert "# tiny-4bit" in card
        assert "4 bits, groups of 64, affine" in card
        assert str(output.parent) not in card  # the path of the folder is private

    def test_card_of_a_model_from_the_hub(self, source, tmp_path, monkeypatch):
        opening = mlx_qwen3.conversion.source.open
        monkeypatch.setattr(opening, "open_repository", lambda *_: opening.open_folder(source))
        convert("Qwen/Qwen3-0.6B", tmp_path / "out")
        assert "base_model: Qwen/Qwen3-0.6B\n" in (tmp_path / "out" / "README.md").read_text()

    def test_card_of_a_folder_with_the_name_of_a_hub_model(self, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "Qwen").mkdir()
        source.rename(tmp_path / "Qwen" / "Qwen3-0.6B")
        convert("Qwen/Qwen3-0.6B", "out")
        assert "base_model" not in Path("out/README.md").read_text()

    def test_a_new_spelling_of_rope_is_written_in_the_old_one_too(self, tmp_path):
        yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32_768}
        raw = {key: value for key, value in DENSE.items() if not key.startswith("rope")}
        write_checkpoint(tmp_path / "a", raw | {"rope_parameters": yarn | {"rope_theta": 5e6}})
        convert(tmp_path / "a", tmp_path / "b")
        written = read_json(tmp_path / "b" / "config.json")
        assert written["rope_theta"] == 5e6
        assert written["rope_scaling"] == yarn

    def test_a_dtype_asked_for_is_in_the_config(self, tmp_path):
        write_checkpoint(tmp_path / "a", DENSE | {"torch_dtype": "bfloat16"})
        convert(tmp_path / "a", tmp_path / "b", bits=None, dtype="float16")
        assert read_json(tmp_path / "b" / "config.json")["torch_dtype"] == "float16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 7}, "affine has no 7 bits; use 2, 3, 4, 5, 6, 8"),
        ({"group_size": 48}, "affine has no groups of 48; use 32, 64, 128"),
        ({"mode": "int4"}, "mode 'int4' is unknown; use affine, mxfp4, mxfp8, nvfp4"),
        ({"mode": "mxfp4", "group_size": 64}, "mxfp4 has no groups of 64; use 32"),
        ({"mode": "mxfp8", "bits": 4}, "mxfp8 has no 4 bits; use 8"),
        ({"bits": None, "group_size": 32}, "no bits: nothing is quantized; give bits"),
        ({"bits": None, "mode": "mxfp4"}, "no bits: nothing is quantized; give bits"),
        ({"dtype": "int8"}, "dtype 'int8' is unknown; use float16, bfloat16, float32"),
        ({"bits": 4.0}, r"bits must be a whole number or None, not 4\.0"),
        ({"bits": True}, "bits must be a whole number or None, not True"),
        ({"mode": ["affine"]}, r"mode must be a name, not \['affine'\]"),
        ({"dtype": mx.float16}, "dtype must be a name or None, not mlx.core.float16"),
        ({"recipe": 4}, "recipe must be a name or None, not 4"),
        ({"calibrate": 4}, "calibrate must be a file or None, not 4"),
        ({"target_bpw": "4.5"}, "target_bpw must be a number or None, not '4.5'"),
        ({"max_shard_bytes": "5GB"}, "max_shard_bytes must be a whole number, not '5GB'"),
        ({"on_progress": "bar"}, "on_progress must be a function or None, not 'bar'"),
        ({"on_download": "bar"}, "on_download must be a function or None, not 'bar'"),
    ],
)
def test_settings_that_do_not_exist(source, tmp_path, settings, message):
    with pytest.raises(ConversionError, match=message):
        convert(source, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "name"), [((4, "out"), "source"), (("a", None), "output")])
def test_paths_of_other_types(arguments, name):
    with pytest.raises(ConversionError, match=f"{name} must be a .*path, not "):
        convert(*arguments)
    with pytest.raises(ConversionError, match="folder must be a path, not 4"):
        verify(4)


def test_a_quantized_source_is_refused(source, tmp_path):
    convert(source, tmp_path / "out")
    message = r"quantized already \(4 bits\); .* or dequantize it; try dequantize=True"
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path / "out", tmp_path / "again")


class TestCommand:
    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["convert", *arguments])

    def test_prints_a_summary(self, source, tmp_path):
        done = self.run(str(source), "-o", str(tmp_path / "out"), "--mode", "mxfp8")
        assert done.exit_code == 0
        assert "8.3" in done.output
        assert len(done.output.splitlines()) == 2
        following = done.output.splitlines()[-1]
        assert following == f"chat with it: {program()} chat --model {tmp_path / 'out'}"
        assert (tmp_path / "out" / "model.safetensors").exists()

    def test_names_the_output_after_the_source(self, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert self.run(f"{source}/", "--bits", "8").exit_code == 0
        assert self.run(str(source), "--bits", "16", "--dtype", "bfloat16").exit_code == 0
        assert (tmp_path / "source-MLX-8bit" / "config.json").exists()
        assert "quantization" not in json.loads((tmp_path / "source-MLX" / "config.json").read_text())

    def test_dequantizes(self, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        self.run(str(source), "-o", "small")
        assert self.run("small", "--dequantize", "--dtype", "float16").exit_code == 0
        assert load_model(tmp_path / "small-MLX").args.quantization is None

    def test_a_dry_run_writes_nothing(self, source, tmp_path):
        before = set(tmp_path.iterdir())
        done = self.run(str(source), "-o", str(tmp_path / "out"), "--dry-run")
        assert done.exit_code == 0
        assert "nothing was written" in done.output
        assert set(tmp_path.iterdir()) == before

    def test_failures_come_as_our_errors(self, source, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("")
        assert isinstance(self.run(str(source), "-o", str(tmp_path / "out")).exception, ConversionError)


def test_the_report_is_frozen(source, tmp_path):
    report = convert(source, tmp_path / "out")
    assert isinstance(report, Report)
    assert report.output == tmp_path / "out"
    with pytest.raises(AttributeError):
        report.total_size = 0  # type: ignore[misc]


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_one_value_that_is_not_finite_is_seen(dtype, value):
    array = mx.array(np.random.default_rng(0).standard_normal((7, 9)) * 6_000).astype(dtype)
    assert chunks.is_finite(array)
    array[3, 4] = value
    assert not chunks.is_finite(array)
