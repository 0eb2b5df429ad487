"""Models are found by any of their names, and a folder's weights end up in the model unchanged."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest

from tiny_checkpoints import DENSE, MOE, logits, save_shards, write_checkpoint  # isort: skip
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_qwen3.checkpoint import (
    FAMILY,
    SHORT_NAMES,
    config_for_context,
    expected_tensors,
    load_config,
    load_model,
    locate,
    resolve,
)
from mlx_qwen3.errors import ConfigError, ModelNotFoundError
from mlx_qwen3.model.config import ModelConfig, RopeScaling
from mlx_qwen3.model.qwen3 import Model

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "qwen3" / "published"


def plain_logits(raw: dict, tensors: dict[str, mx.array]) -> np.ndarray:
    """The same tensors in a model built by hand."""
    model = Model(ModelConfig.from_dict(raw))
    model.load_weights(list(model.sanitize(dict(tensors)).items()))
    return logits(model)


@pytest.mark.parametrize(
    "raw", [DENSE, DENSE | {"tie_word_embeddings": False}, MOE], ids=["tied", "untied", "moe"]
)
@pytest.mark.parametrize("shards", [1, 3])
def test_loads_what_the_files_hold(tmp_path, raw, shards):
    tensors = write_checkpoint(tmp_path, raw, shards=shards)
    np.testing.assert_allclose(logits(load_model(tmp_path)), plain_logits(raw, tensors), atol=1e-4)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_weights_keep_their_values(tmp_path, dtype):
    tensors = write_checkpoint(tmp_path, DENSE, dtype)
    loaded = dict(tree_flatten(load_model(tmp_path).parameters()))
    assert loaded.keys() == tensors.keys()
    assert all(
        mx.array_equal(loaded[name].astype(mx.float32), tensors[name].astype(mx.float32)) for name in tensors
    )


def test_shards_without_an_index(tmp_path):
    tensors = write_checkpoint(tmp_path, DENSE, shards=2)
    (tmp_path / "model.safetensors.index.json").unlink()
    np.testing.assert_allclose(logits(load_model(tmp_path)), plain_logits(DENSE, tensors), atol=1e-4)


def test_a_stored_head_beside_a_tied_one_is_ignored(tmp_path):
    tensors = write_checkpoint(tmp_path, DENSE)
    head = {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    save_shards(tmp_path, tensors | head)
    np.testing.assert_allclose(logits(load_model(tmp_path)), plain_logits(DENSE, tensors), atol=1e-4)


def test_a_layer_without_scales_is_left_unquantized(tmp_path):
    tensors = write_checkpoint(tmp_path, DENSE)
    model = Model(ModelConfig.from_dict(DENSE))
    model.load_weights(list(tensors.items()))
    nn.quantize(
        model, 64, 4, class_predicate=lambda path, module: hasattr(module, "scales") or "down" in path
    )
    save_shards(tmp_path, dict(tree_flatten(model.parameters())))
    raw = DENSE | {"quantization": {"bits": 4, "group_size": 64}}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    loaded = load_model(tmp_path)
    assert isinstance(loaded.layers[0].mlp.down_proj, nn.QuantizedLinear)
    assert isinstance(loaded.layers[0].mlp.up_proj, nn.Linear)
    np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-4)


def test_loaded_weights_are_evaluated_and_in_evaluation_mode(tmp_path):
    write_checkpoint(tmp_path, MOE)
    model = load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # a lazy weight could not be read any more
    assert np.isfinite(logits(model)).all()
    assert not model.training


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not on this machine")
def test_expects_exactly_the_published_tensors():
    expected = expected_tensors(ModelConfig.from_file(PUBLISHED / "Qwen3-14B-MLX-4bit.config.json"))
    index = json.loads((PUBLISHED / "Qwen3-14B-MLX-4bit.index.json").read_text())
    assert expected.keys() == index["weight_map"].keys()
    assert sum(math.prod(shape) * dtype.size for shape, dtype in expected.values()) == 8_307_783_680


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not on this machine")
def test_expects_exactly_the_published_tensors_of_a_tied_model():
    expected = expected_tensors(ModelConfig.from_file(PUBLISHED / "Qwen3-1.7B.config.json"))
    index = json.loads((PUBLISHED / "Qwen3-1.7B.index.json").read_text())
    total = sum(math.prod(shape) * dtype.size for shape, dtype in expected.values())
    assert expected.keys() == index["weight_map"].keys()
    assert total == index["metadata"]["total_size"]


class TestResolve:
    def test_a_folder(self, tmp_path):
        assert resolve(tmp_path) == tmp_path
        assert resolve(str(tmp_path)) == tmp_path

    def test_a_path_to_a_folder_named_like_a_model_is_that_folder(self, tmp_path, monkeypatch, hub):
        write_checkpoint(tmp_path / "14b", DENSE)
        monkeypatch.chdir(tmp_path)
        assert resolve("14b") == Path("/hub/Qwen/Qwen3-14B-MLX-4bit")
        for name in ("./14b", Path("14b")):
            assert resolve(name) == Path("14b")
        assert load_config("./14b") == load_model("./14b").args

    def test_a_folder_with_a_name_of_the_hub_is_said_to_be_used(self, tmp_path, monkeypatch, hub):
        monkeypatch.chdir(tmp_path)
        for name in ("Qwen/Qwen3-14B", "models/mine"):
            Path(name).mkdir(parents=True)
        with pytest.warns(
            UserWarning, match=r"the folder .*Qwen/Qwen3-14B is used, not Qwen/Qwen3-14B of the"
        ):
            assert resolve("Qwen/Qwen3-14B") == Path("Qwen/Qwen3-14B")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in ("./Qwen/Qwen3-14B", "models/mine", Path("Qwen/Qwen3-14B")):
                assert resolve(name) == Path(name)

    def test_a_short_name_stays_at_what_was_downloaded_first(self, monkeypatch, hub):
        monkeypatch.setattr(locate, "downloaded", lambda repository, cache: Path("/first") / repository)
        assert resolve("14b") == Path("/first/Qwen/Qwen3-14B-MLX-4bit")
        assert resolve("Qwen/Qwen3-14B-MLX-4bit") == Path("/hub/Qwen/Qwen3-14B-MLX-4bit")

    def test_the_demo_is_in_the_package(self):
        assert (resolve("demo") / "chat_template.jinja").is_file()

    def test_home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "model").mkdir()
        assert resolve("~/model") == tmp_path / "model"

    @pytest.mark.parametrize("name", ["14b", "14B"])
    def test_short_names_are_the_official_repositories(self, name, hub):
        assert resolve(name) == Path("/hub/Qwen/Qwen3-14B-MLX-4bit")

    def test_a_hub_id(self, hub):
        assert resolve("Qwen/Qwen3-0.6B") == Path("/hub/Qwen/Qwen3-0.6B")

    def test_the_family(self):
        assert SHORT_NAMES == ("0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b", "235b-a22b")
        assert FAMILY["14b"].num_bytes == 8_307_783_680
        assert all(member.repository.startswith("Qwen/") for member in FAMILY.values())

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("14bb", "did you mean 14b?"), ("qwen3-0.6", "did you mean 0.6b?"), ("demoo", "did you mean demo?")],
    )
    def test_a_typo_in_a_short_name(self, name, hint):
        with pytest.raises(ModelNotFoundError, match=hint):
            resolve(name)

    @pytest.mark.parametrize("name", ["a" * 5000, "~nobody-of-that-name/x", "./" + "é" * 300, "a\0b"])
    def test_what_can_be_no_path(self, name):
        with pytest.raises(ModelNotFoundError, match="no "):
            resolve(name)

    def test_a_typo_in_a_path(self, tmp_path):
        (tmp_path / "qwen-4bit").mkdir()
        with pytest.raises(ModelNotFoundError, match=r"qwen-4bt \(did you mean qwen-4bit\?\)"):
            resolve(tmp_path / "qwen-4bt")

    def test_a_file(self, tmp_path):
        for name, said in (
            ("model.safetensors", "is not a folder"),
            ("model.gguf", "has to be converted first"),
        ):
            (tmp_path / name).write_text("")
            with pytest.raises(ModelNotFoundError, match=said):
                resolve(tmp_path / name)


@pytest.fixture
def hub(monkeypatch):
    """A hub that has everything."""
    monkeypatch.setattr(locate, "downloaded", lambda *_: None)
    monkeypatch.setattr(locate, "download", lambda repository, *_, **__: Path("/hub") / repository)


class TestContext:
    CONFIG = ModelConfig.from_dict(DENSE)

    @pytest.mark.parametrize("context", [None, 1, 20_000, 32_768])
    def test_nothing_is_scaled_within_the_native_length(self, context):
        assert config_for_context(self.CONFIG, context) == self.CONFIG

    @pytest.mark.parametrize(
        ("context", "factor"),
        [
            (32_769, 1.5),
            (40_960, 1.5),
            (49_152, 1.5),
            (49_153, 2.0),
            (65_536, 2.0),
            (100_000, 3.5),
            (131_072, 4.0),
        ],
    )
    def test_the_smallest_factor_that_covers_it(self, context, factor):
        config = config_for_context(self.CONFIG, context)
        assert config.rope_scaling == RopeScaling(factor, 32_768)
        assert config.context_length >= context

    def test_beyond_four_times_is_refused_with_the_most_there_is(self):
        with pytest.raises(ConfigError, match="131,072 with YaRN"):
            config_for_context(self.CONFIG, 131_073)

    def test_nothing_is_no_context(self):
        with pytest.raises(ConfigError, match="at least 1"):
            config_for_context(self.CONFIG, 0)

    def test_a_long_native_length_is_believed(self):
        config = ModelConfig.from_dict(DENSE | {"max_position_embeddings": 262_144})
        assert config_for_context(config, 262_144) == config
        assert config_for_context(config, 262_145).rope_scaling == RopeScaling(1.5, 262_144)

    def test_a_config_with_yarn_gets_only_what_is_needed(self):
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
        config = ModelConfig.from_dict(DENSE | {"rope_scaling": yarn, "max_position_embeddings": 131_072})
        assert config_for_context(config, None) == config
        assert config_for_context(config, 131_072) == config
        assert config_for_context(config, 60_000).rope_scaling == RopeScaling(2.0, 32_768)
        short = config_for_context(config, 8_000)
        assert short.rope_scaling is None
        assert short.context_length == 32_768

    def test_reaches_the_model(self, tmp_path):
        write_checkpoint(tmp_path, DENSE)
        assert load_model(tmp_path, context=65_536).args.context_length == 65_536
        assert load_config(tmp_path).rope_scaling is None
