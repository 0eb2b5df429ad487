"""A damaged checkpoint is refused before a weight is loaded, in one line that names file and tensor."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from tiny_checkpoints import DENSE, MOE, save_shards, write_checkpoint

from mlx_qwen3.checkpoint import load_model
from mlx_qwen3.errors import CheckpointError, ConfigError, ModelNotFoundError, Qwen3Error
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

INDEX = "model.safetensors.index.json"
UP = "model.layers.0.mlp.up_proj.weight"
EXPERT = "model.layers.2.mlp.experts.3.up_proj.weight"


def refuse(folder: Path, *words: str, error: type[Qwen3Error] = CheckpointError) -> None:
    """Loading `folder` fails with exactly `error`, in one line that contains all `words`."""
    with pytest.raises(error) as caught:
        load_model(folder)
    message = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in message
    assert len(message) < 500
    for word in words:
        assert word in message


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Fails the test if weights are read."""
    monkeypatch.setattr(mx, "load", lambda *args, **options: pytest.fail("weights were read"))


@pytest.fixture
def dense(tmp_path, nothing_is_loaded):
    write_checkpoint(tmp_path, DENSE)
    return tmp_path


@pytest.fixture
def sharded(tmp_path, nothing_is_loaded):
    write_checkpoint(tmp_path, DENSE, shards=3)
    return tmp_path


def edit(folder: Path, raw: dict, change: Callable[[dict[str, mx.array]], object]) -> Path:
    """Rewrite the checkpoint in `folder` with some tensors changed."""
    tensors = write_checkpoint(folder, raw)
    change(tensors)
    save_shards(folder, tensors)
    return folder


class TestFiles:
    @pytest.mark.parametrize("kept", [0, 7, 300, -1])
    def test_a_truncated_file(self, dense, kept):
        file = dense / "model.safetensors"
        file.write_bytes(file.read_bytes()[:kept])
        refuse(dense, "model.safetensors", "cut off", "download it again")

    def test_a_truncated_shard(self, sharded):
        file = sharded / "model-00002-of-00003.safetensors"
        os.truncate(file, file.stat().st_size - 100)
        refuse(sharded, "model-00002-of-00003.safetensors", "cut off")

    def test_an_error_page_saved_as_a_shard(self, dense):
        (dense / "model.safetensors").write_text("<html>404 not found</html>")
        refuse(dense, "model.safetensors", "damaged")

    def test_missing_shards(self, sharded):
        (sharded / "model-00001-of-00003.safetensors").unlink()
        (sharded / "model-00003-of-00003.safetensors").unlink()
        refuse(
            sharded, "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors", "of the 3 files"
        )

    def test_a_broken_index(self, sharded):
        (sharded / INDEX).write_text('{"weight_map": {')
        refuse(sharded, INDEX, "not valid JSON")

    @pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
    def test_an_index_without_a_map(self, sharded, content):
        (sharded / INDEX).write_text(content)
        refuse(sharded, INDEX)

    @pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "weights.bin"])
    def test_an_index_that_leaves_the_folder_or_names_a_pickle(self, sharded, name):
        (sharded / INDEX).write_text(json.dumps({"weight_map": {UP: name}}))
        refuse(sharded, INDEX, "weight_map")

    def test_an_index_at_odds_with_its_files(self, sharded):
        index = json.loads((sharded / INDEX).read_text())
        index["weight_map"][UP] = "model-00001-of-00003.safetensors"
        index["weight_map"]["model.norm.weight"] = "model-00002-of-00003.safetensors"
        (sharded / INDEX).write_text(json.dumps(index))
        refuse(sharded, "which the index places there")

    def test_the_same_tensor_twice(self, sharded):
        (sharded / INDEX).unlink()
        file = sharded / "model-00001-of-00003.safetensors"
        (sharded / "model-copy.safetensors").write_bytes(file.read_bytes())
        refuse(sharded, "model-copy.safetensors", "both hold")

    def test_no_weights(self, dense):
        (dense / "model.safetensors").unlink()
        refuse(dense, "no .safetensors file")

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
    def test_only_pickled_weights(self, dense, name):
        (dense / "model.safetensors").rename(dense / name)
        refuse(dense, name, "pickled", "not opened")


class TestConfig:
    def test_missing(self, dense):
        (dense / "config.json").unlink()
        refuse(dense, "config.json is missing", error=ConfigError)

    def test_broken(self, dense):
        (dense / "config.json").write_text('{"model_type": "qwen3", ')
        refuse(dense, "config.json", "not valid JSON", error=ConfigError)

    def test_another_model(self, dense):
        (dense / "config.json").write_text(json.dumps(DENSE | {"model_type": "llama"}))
        refuse(dense, "config.json", "'llama' is not a Qwen3", error=ConfigError)


class TestTensors:
    def test_missing(self, tmp_path, nothing_is_loaded):
        edit(tmp_path, DENSE, lambda tensors: tensors.pop(UP))
        refuse(tmp_path, f"lacks {UP}", "1 of 24")

    def test_many_missing_are_counted(self, tmp_path, nothing_is_loaded):
        edit(tmp_path, DENSE, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".0." in name])
        refuse(tmp_path, "and 8 more (11 of 24 tensors)")

    def test_unexpected(self, tmp_path, nothing_is_loaded):
        edit(
            tmp_path,
            DENSE,
            lambda tensors: tensors.update({"model.layers.2.mlp.up_proj.weight": mx.zeros(3)}),
        )
        refuse(tmp_path, "unexpected model.layers.2.mlp.up_proj.weight")

    def test_misshapen(self, tmp_path, nothing_is_loaded):
        edit(tmp_path, DENSE, lambda tensors: tensors.update({UP: mx.zeros((255, 128))}))
        refuse(tmp_path, "model.safetensors", UP, "[255, 128]", "[256, 128]")

    @pytest.mark.parametrize("dtype", [mx.int32, mx.uint8])
    def test_of_a_kind_that_is_no_number_format_of_ours(self, tmp_path, nothing_is_loaded, dtype):
        edit(tmp_path, DENSE, lambda tensors: tensors.update({UP: tensors[UP].astype(dtype)}))
        refuse(tmp_path, UP, "is stored as", "BF16")

    def test_a_missing_expert_goes_by_its_own_name(self, tmp_path, nothing_is_loaded):
        edit(tmp_path, MOE, lambda tensors: tensors.pop(EXPERT))
        refuse(tmp_path, f"lacks {EXPERT} ")

    def test_an_expert_too_many(self, tmp_path, nothing_is_loaded):
        surplus = EXPERT.replace("experts.3", "experts.4")
        edit(tmp_path, MOE, lambda tensors: tensors.update({surplus: tensors[EXPERT]}))
        refuse(tmp_path, f"unexpected {surplus} ")

    def test_a_misshapen_expert(self, tmp_path, nothing_is_loaded):
        edit(tmp_path, MOE, lambda tensors: tensors.update({EXPERT: mx.zeros((1, 1))}))
        refuse(tmp_path, EXPERT, "[1, 1]", "[64, 128]")


class TestQuantized:
    @pytest.fixture
    def folder(self, tmp_path, nothing_is_loaded):
        """A 4-bit checkpoint."""
        write_checkpoint(tmp_path, DENSE)
        model = Model(ModelConfig.from_dict(DENSE))
        nn.quantize(model, 64, 4)
        save_shards(tmp_path, dict(tree_flatten(model.parameters())))
        self.describe(tmp_path, {"bits": 4, "group_size": 64})
        return tmp_path

    def describe(self, folder, quantization):
        (folder / "config.json").write_text(json.dumps(DENSE | {"quantization": quantization}))

    @pytest.mark.parametrize(("bits", "group_size"), [(8, 64), (4, 32), (3, 128)])
    def test_at_odds_with_the_config(self, folder, bits, group_size):
        self.describe(folder, {"bits": bits, "group_size": group_size})
        refuse(folder, "model.safetensors: model.", "has shape", "config.json asks for")

    def test_an_override_at_odds_with_its_layer(self, folder):
        path = UP.removesuffix(".weight")
        self.describe(folder, {"bits": 4, "group_size": 64, path: {"bits": 8, "group_size": 64}})
        refuse(folder, UP, "8 bits in groups of 64")

    def test_a_group_that_does_not_divide_the_rows(self, folder):
        raw = DENSE | {"hidden_size": 160, "quantization": {"bits": 4, "group_size": 64}}
        (folder / "config.json").write_text(json.dumps(raw))
        refuse(folder, "groups of 64", "160")

    def test_undescribed(self, folder):
        """Shapes tell most quantizations, but no mode has groups of 64 without biases."""
        (folder / "config.json").write_text(json.dumps(DENSE))
        model = Model(ModelConfig.from_dict(DENSE))
        nn.quantize(model, 64, 4)
        tensors = dict(tree_flatten(model.parameters()))
        save_shards(folder, {name: value for name, value in tensors.items() if ".biases" not in name})
        refuse(folder, "is quantized", "no `quantization`")

    def test_by_a_method_of_others(self, folder):
        for method, error, problem in (
            ("hqq", ConfigError, "quantized with 'hqq'"),
            ("awq", CheckpointError, "beside the parts of awq"),
        ):
            raw = DENSE | {"quantization_config": {"quant_method": method, "bits": 4}}
            (folder / "config.json").write_text(json.dumps(raw))
            refuse(folder, problem, error=error)

    def test_lost_scales(self, folder):
        model = Model(ModelConfig.from_dict(DENSE))
        nn.quantize(model, 64, 4)
        tensors = dict(tree_flatten(model.parameters()))
        del tensors[UP.replace(".weight", ".scales")]
        save_shards(folder, tensors)
        refuse(folder, f"lacks {UP.replace('.weight', '.scales')} ")


def test_an_unreachable_hub_is_one_line_of_the_command(tmp_path):
    program = "import sys; from mlx_qwen3.cli.app import main; main(sys.argv[1:])"
    arguments = ["convert", "Qwen/Qwen3-0.6B", "-o", str(tmp_path / "out")]
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(
        r"error: Qwen/Qwen3-0.6B is not downloaded and the hub cannot be reached.*\n", done.stderr
    )


def test_an_unknown_name_is_a_model_not_found(tmp_path):
    refuse(tmp_path / "nowhere", "no folder", error=ModelNotFoundError)
