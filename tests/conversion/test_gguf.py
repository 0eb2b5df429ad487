"""GGUF files: weights, config and tokenizer become those that Qwen publishes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import struct
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf_files import SCALE_PLACES, Kind, Weights, gguf_weights, write_gguf
from qwen_tokenizer_files import CONTROL_TOKENS, qwen_tokenizer_folder
from scripted import write_byte_tokenizer
from tiny_checkpoints import DENSE, MOE, logits
from typer.testing import CliRunner

from mlx_qwen3 import load_model, load_tokenizer
from mlx_qwen3.cli.app import app
from mlx_qwen3.conversion import convert, plan, verify
from mlx_qwen3.conversion.source import gguf_file
from mlx_qwen3.conversion.source.gguf_model import published_name
from mlx_qwen3.errors import (
    CheckpointError,
    ConfigError,
    ConversionError,
    ModelNotFoundError,
    Qwen3Error,
    TokenizerError,
)
from mlx_qwen3.model.config import ModelConfig, RopeScaling, read_json
from mlx_qwen3.model.qwen3 import Model

# Rows of 256 values, as most of llama.cpp's blocks hold.
WIDE = DENSE | {"hidden_size": 256, "head_dim": 64, "num_hidden_layers": 1, "vocab_size": 320}
EXPERTS = MOE | {"hidden_size": 256, "head_dim": 64, "num_hidden_layers": 1, "vocab_size": 320}
EXPERTS |= {"moe_intermediate_size": 256, "mlp_only_layers": []}
KINDS = [
    *(Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0),
    *(Kind.TQ1_0, Kind.TQ2_0, Kind.MXFP4, *SCALE_PLACES),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A tokenizer with one merge, since a file must have some."""
    folder = write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab, added = content["model"]["vocab"], content["added_tokens"]
    vocab["ab"] = len(vocab)
    content["model"]["merges"] = [["a", "b"]]
    for token in added:
        token["id"] += 1
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def reference_logits(raw: dict[str, Any], weights: Weights) -> np.ndarray:
    """Logits of our model with these weights in fp32."""
    model = Model(ModelConfig.from_dict(raw))
    model.load_weights([(published_name(name), mx.array(value)) for name, value in weights.items()])
    return logits(model)


@pytest.mark.parametrize("raw", [WIDE, EXPERTS], ids=["dense", "moe"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_logits_are_those_of_the_dequantized_weights(tmp_path, tokenizer, raw, kind):
    weights = write_gguf(tmp_path / "model.gguf", raw, gguf_weights(raw), kind, tokenizer)
    assert all(np.isfinite(value).all() for value in weights.values())
    convert(tmp_path / "model.gguf", tmp_path / "out", bits=None, dtype="float32", verify=False)
    expected = reference_logits(raw, weights)
    np.testing.assert_allclose(logits(load_model(tmp_path / "out")), expected, rtol=1e-4, atol=1e-4)


def mixed(name: str) -> Kind:
    """The types of a file named Q4_K_M."""
    if "ffn_gate_inp" in name:
        return Kind.F32
    return Kind.Q6_K if "attn_v" in name or "ffn_down" in name or "token_embd" in name else Kind.Q4_K


class TestFile:
    @pytest.fixture
    def file(self, tmp_path, tokenizer) -> Path:
        write_gguf(tmp_path / "tiny-Q4_K_M.gguf", EXPERTS, gguf_weights(EXPERTS), mixed, tokenizer)
        return tmp_path / "tiny-Q4_K_M.gguf"

    def test_quantized_anew_and_verified(self, file, tmp_path):
        report = convert(file, tmp_path / "out", bits=8)
        assert report.verification is not None
        assert report.verification.error < 0.01
        assert verify(tmp_path / "out", file).tensors == report.verification.tensors
        assert load_model(tmp_path / "out").args.quantization.bits == 8

    def test_kept_in_sixteen_bits(self, file, tmp_path):
        convert(file, tmp_path / "out", bits=None)
        model = load_model(tmp_path / "out")
        assert (
            tmp_path / "out" / "model.safetensors"
        ).stat().st_size < 2.1 * model.args.num_parameters + 9999

    def test_chats(self, file, tmp_path):
        convert(file, tmp_path / "out")
        loaded = load_tokenizer(tmp_path / "out")
        assert loaded.decode(loaded.apply_chat_template([{"role": "user", "content": "hi"}])).startswith(
            "<|im_start|>"
        )
        assert loaded.eos_token_ids == (
            loaded.control_tokens["<|im_end|>"],
            loaded.control_tokens["<|endoftext|>"],
        )

    def test_mlx_lm_loads_it(self, file, tmp_path):
        from mlx_lm.utils import load_model as mlx_lm_load

        convert(file, tmp_path / "out", dtype="float32", verify=False)
        expected = logits(mlx_lm_load(tmp_path / "out")[0])
        np.testing.assert_allclose(logits(load_model(tmp_path / "out")), expected, rtol=1e-3, atol=1e-3)

    def test_the_command(self, file, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(app, ["convert", file.name])
        assert done.exit_code == 0, done.output
        assert (tmp_path / "tiny-Q4_K_M-MLX-4bit" / "config.json").exists()

    def test_a_kill_is_survived_as_ever(self, file, tmp_path):
        def stop(progress: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert(file, tmp_path / "out", on_progress=stop)
        assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


def test_a_file_in_parts(tmp_path, tokenizer):
    weights = write_gguf(
        tmp_path / "tiny.gguf", WIDE, gguf_weights(WIDE), Kind.Q8_0, tokenizer, max_tensors=5
    )
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == 3
    convert(parts[0], tmp_path / "a", bits=None, dtype="float32", verify=False)
    convert(parts[2], tmp_path / "b", bits=None, dtype="float32", verify=False)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    np.testing.assert_allclose(logits(load_model(tmp_path / "a")), reference_logits(WIDE, weights), atol=1e-4)
    parts[1].unlink()
    with pytest.raises(CheckpointError, match=r"lacks tiny-00002-of-00003.gguf of 3 parts"):
        plan(parts[0])


class TestConfig:
    def converted(self, tmp_path, tokenizer, raw, **more: Any) -> ModelConfig:
        weights = gguf_weights(raw) if more.pop("output", True) else more.pop("weights")
        write_gguf(tmp_path / "a.gguf", raw, weights, Kind.Q8_0, tokenizer, more=more.pop("more", None))
        convert(tmp_path / "a.gguf", tmp_path / "out", bits=None, verify=False)
        return ModelConfig.from_file(tmp_path / "out" / "config.json")

    @pytest.mark.parametrize("raw", [WIDE, EXPERTS, WIDE | {"tie_word_embeddings": False}])
    def test_is_what_was_published(self, tmp_path, tokenizer, raw):
        assert self.converted(tmp_path, tokenizer, raw) == ModelConfig.from_dict(raw)

    def test_yarn(self, tmp_path, tokenizer):
        more = {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32768,
        }
        raw = WIDE | {"max_position_embeddings": 131072, "rope_theta": 5e6}
        config = self.converted(tmp_path, tokenizer, raw, more=more)
        assert config.rope_scaling == RopeScaling(4.0, 32768)
        assert (config.rope_theta, config.max_position_embeddings) == (5e6, 131072)

    def test_yarn_with_another_attention_factor(self, tmp_path, tokenizer):
        more = {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.scaling.attn_factor": 0.5}
        config = self.converted(tmp_path, tokenizer, WIDE, more=more)
        assert config.rope_scaling is not None
        assert config.rope_scaling.attention_factor == pytest.approx(0.5 * (0.1 * np.log(2) + 1))

    def test_another_rope_is_refused(self, tmp_path, tokenizer):
        more = {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
        with pytest.raises(ConfigError, match="'linear' is not supported"):
            self.converted(tmp_path, tokenizer, WIDE, more=more)


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """A checkpoint with Qwen's vocabulary, converted from a file."""
    folder = tmp_path_factory.mktemp("qwen")
    raw = DENSE | {"vocab_size": 151_936, "hidden_size": 32, "num_hidden_layers": 1}
    write_gguf(folder / "a.gguf", raw, gguf_weights(raw), Kind.F16, qwen_tokenizer_folder())
    convert(folder / "a.gguf", folder / "out", bits=None, verify=False)
    return folder / "out"


class TestTokenizer:
    TEXTS = (
        *(
            "",
            " ",
            "Hello world",
            "it's they'LL I'M",
            "1234567890",
            "a\u0301 é ñ",
            "日本語テキスト 🙂👍🏽",
            "\r\n\n \t x",
        ),
        *(
            "<|im_start|>user\nhi<|im_end|>",
            "<think>\n</think>",
            "def f(x):\n    return x**2  # ok\n",
            "привет мир",
        ),
    )

    def test_ids_and_prompts_are_those_of_qwen(self, converted):
        theirs, ours = load_tokenizer(qwen_tokenizer_folder()), load_tokenizer(converted)
        assert dict(ours.control_tokens) == CONTROL_TOKENS
        assert ours.vocab_size == theirs.vocab_size == 151_669
        assert ours.eos_token_ids == theirs.eos_token_ids
        generator = random.Random(0)
        texts = [*self.TEXTS, *("".join(map(chr, random_points(generator))) for _ in range(500))]
        for text in texts:
            for control_tokens in (True, False):
                expected = theirs.encode(text, control_tokens=control_tokens)
                assert ours.encode(text, control_tokens=control_tokens) == expected, text
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi /think"}]
        assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages)

    def test_the_file_is_the_published_one(self, converted):
        theirs, ours = (
            read_json(folder / "tokenizer.json") for folder in (qwen_tokenizer_folder(), converted)
        )
        assert ours == theirs


def random_points(generator: random.Random) -> list[int]:
    """Characters of every script and length of UTF-8, spaces and line ends among them."""
    ranges = [(32, 126), (32, 126), (9, 13), (0xA0, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x600, 0x6FF)]
    ranges += [(0x900, 0x97F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1F6FF)]
    return [generator.randint(*generator.choice(ranges)) for _ in range(generator.randint(1, 60))]


class TestRefused:
    def refuse(self, path: Path, error: type[Qwen3Error], message: str) -> None:
        with pytest.raises(error, match=message) as caught:
            convert(path, path.parent / "out")
        assert "\n" not in str(caught.value)
        assert not (path.parent / "out").exists()

    @pytest.fixture
    def file(self, tmp_path, tokenizer) -> Path:
        write_gguf(tmp_path / "a.gguf", WIDE, gguf_weights(WIDE), Kind.Q4_0, tokenizer)
        return tmp_path / "a.gguf"

    @pytest.mark.parametrize("size", [0, 3, 100, 5_000, 30_000, -1])
    def test_a_cut_off_file(self, file, size):
        os.truncate(file, size if size >= 0 else file.stat().st_size + size)
        self.refuse(file, CheckpointError, "damaged|cut off")

    def test_an_error_page(self, file):
        file.write_text("<html>404</html>" * 100)
        self.refuse(file, CheckpointError, r"a.gguf is damaged or not GGUF \(it does not begin with GGUF\)")

    def test_random_damage_of_the_header(self, file):
        content = file.read_bytes()
        generator = random.Random(1)
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(4):
                damaged[generator.randrange(4, 8_000)] = generator.randrange(256)
            file.write_bytes(damaged)
            with contextlib.suppress(Qwen3Error):
                plan(file)

    @pytest.mark.parametrize(
        ("fields", "tensors", "rest", "message"),
        [
            (1, 0, struct.pack("<IIQ", 9, 0, 5_000_000) + bytes(5_000_000), "5,000,000 values in arrays"),
            (1, 0, struct.pack("<IIQ", 9, 8, 2**60), "values in arrays"),
            (2**40, 0, b"", "fields"),
            (0, 10**6, bytes(10**6), "1,000,000 tensors"),
            (1, 0, struct.pack("<IQ", 8, 2**40), "it ends within its header"),
        ],
        ids=["array", "strings", "fields", "tensors", "string"],
    )
    def test_counts_that_no_file_has(self, tmp_path, fields, tensors, rest, message):
        header = b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + struct.pack("<Q", 1) + b"a"
        (tmp_path / "a.gguf").write_bytes(header + rest)
        self.refuse(tmp_path / "a.gguf", CheckpointError, message)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("qwen3.block_count", 10**6),
            ("qwen3.block_count", 500),
            ("qwen3.attention.head_count", 0),
            ("qwen3.attention.head_count", [1, 2]),
            ("qwen3.rope.freq_base", math.nan),
            ("qwen3.attention.layer_norm_rms_epsilon", math.inf),
            ("general.architecture", ["qwen3"]),
            ("tokenizer.ggml.tokens", [1, 2, 3]),
            ("tokenizer.ggml.merges", [1]),
            ("tokenizer.ggml.pre", ["qwen2"]),
        ],
    )
    def test_values_of_a_wrong_kind_or_size(self, file, monkeypatch, key, value):
        read = gguf_file.read_header

        def changed(path: Path) -> Any:
            fields, tensors = read(path)
            return fields | {key: value}, tensors

        monkeypatch.setattr(gguf_file, "read_header", changed)
        with pytest.raises(Qwen3Error) as caught:
            plan(file)
        assert str(caught.value).isprintable()

    def test_an_end_of_turn_of_a_wrong_kind_is_none(self, file, monkeypatch):
        read = gguf_file.read_header
        wrong = {f"tokenizer.ggml.{name}_token_id": ["x"] for name in ("eos", "eot", "bos", "padding")}
        monkeypatch.setattr(gguf_file, "read_header", lambda path: (read(path)[0] | wrong, read(path)[1]))
        assert "eos_token_id" not in plan(file).source.raw_config

    def test_no_such_file(self, tmp_path):
        self.refuse(tmp_path / "b.gguf", ModelNotFoundError, "no file")

    def test_another_architecture(self, tmp_path):
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        self.refuse(tmp_path / "a.gguf", ConfigError, "is a llama model, not qwen3 or qwen3moe")

    def test_a_missing_and_an_unknown_tensor(self, tmp_path, tokenizer):
        weights = gguf_weights(WIDE)
        bias = {"blk.0.attn_q.bias": np.zeros(256, np.float32)}
        write_gguf(tmp_path / "a.gguf", WIDE, weights | bias, Kind.Q4_0, tokenizer)
        self.refuse(tmp_path / "a.gguf", CheckpointError, "unexpected blk.0.attn_q.bias")
        del weights["blk.0.ffn_up.weight"]
        write_gguf(tmp_path / "a.gguf", WIDE, weights, Kind.Q4_0, tokenizer)
        self.refuse(tmp_path / "a.gguf", CheckpointError, "lacks model.layers.0.mlp.up_proj.weight")

    def test_nan(self, tmp_path, tokenizer):
        weights = gguf_weights(WIDE)
        weights["blk.0.ffn_up.weight"][3, 7] = np.nan
        write_gguf(tmp_path / "a.gguf", WIDE, weights, Kind.F16, tokenizer)
        self.refuse(tmp_path / "a.gguf", CheckpointError, "model.layers.0.mlp.up_proj.weight holds NaN")

    def test_without_a_tokenizer(self, tmp_path):
        write_gguf(tmp_path / "a.gguf", WIDE, gguf_weights(WIDE), Kind.Q4_0)
        self.refuse(tmp_path / "a.gguf", TokenizerError, "tokenizer of type None/None")

    def test_without_the_package(self, file, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "gguf", None)
        self.refuse(file, ConversionError, "-m pip install 'gguf")
