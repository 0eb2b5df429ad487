"""Checkpoints that spell or store the same model otherwise load as the same model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from tiny_checkpoints import DENSE, MOE, logits, save_shards, write_checkpoint  # isort: skip
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_qwen3.checkpoint import load_model
from mlx_qwen3.conversion import convert
from mlx_qwen3.errors import CheckpointError
from mlx_qwen3.model.config import ModelConfig
from mlx_qwen3.model.qwen3 import Model

Tensors = dict[str, mx.array]


def fused(tensors: Tensors) -> Tensors:
    """Experts as transformers 5 saves them: (E, 2I, H) and (E, H, I)."""
    result, experts = {}, {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"(.*\.mlp\.experts)\.(\d+)\.(\w+)_proj\.weight", name):
            experts.setdefault(match[1], {})[match[3], int(match[2])] = value
        else:
            result[name] = value
    for path, own in experts.items():
        count = len(own) // 3
        both = [mx.concatenate([own["gate", i], own["up", i]]) for i in range(count)]
        result[f"{path}.gate_up_proj"] = mx.stack(both)
        result[f"{path}.down_proj"] = mx.stack([own["down", i] for i in range(count)])
    return result


def bare(tensors: Tensors) -> Tensors:
    """Names without `model.`, as transformers saves a model without its head."""
    return {name.removeprefix("model."): value for name, value in tensors.items()}


def both(tensors: Tensors) -> Tensors:
    return bare(fused(tensors))


@pytest.mark.parametrize("respell", [fused, bare, both])
@pytest.mark.parametrize(
    "raw", [MOE, MOE | {"tie_word_embeddings": True}, DENSE], ids=["moe", "tied", "dense"]
)
@pytest.mark.parametrize("shards", [1, 3])
class TestOtherSpellings:
    def test_load(
        self, tmp_path: Path, raw: dict, respell: Callable[[Tensors], Tensors], shards: int
    ) -> None:
        tensors = write_checkpoint(tmp_path / "plain", raw)
        expected = logits(load_model(tmp_path / "plain"))
        (tmp_path / "other").mkdir()
        save_shards(tmp_path / "other", respell(tensors), shards)
        (tmp_path / "other" / "config.json").write_text(json.dumps(raw))
        np.testing.assert_allclose(logits(load_model(tmp_path / "other")), expected, atol=1e-5)

    def test_convert(
        self, tmp_path: Path, raw: dict, respell: Callable[[Tensors], Tensors], shards: int
    ) -> None:
        tensors = write_checkpoint(tmp_path / "plain", raw)
        (tmp_path / "other").mkdir()
        save_shards(tmp_path / "other", respell(tensors), shards)
        (tmp_path / "other" / "config.json").write_text(json.dumps(raw))
        for name in ("plain", "other"):
            convert(tmp_path / name, tmp_path / f"{name}-4bit", verify=False)
        ours, theirs = (logits(load_model(tmp_path / f"{name}-4bit")) for name in ("other", "plain"))
        np.testing.assert_array_equal(ours, theirs)


def test_a_bare_model_without_head_is_told_what_it_is(tmp_path: Path) -> None:
    raw = DENSE | {"tie_word_embeddings": False}
    tensors = write_checkpoint(tmp_path, raw)
    save_shards(tmp_path, bare({name: value for name, value in tensors.items() if "lm_head" not in name}))
    with pytest.raises(CheckpointError, match="embedding model, writes no text"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.qweight", "model.layers.0.mlp.experts.gate_up_proj"]
)
def test_tensors_of_an_unknown_kind_are_not_advised_to_be_downloaded_again(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a long path would leave no room for the rest of the message
    tensors = write_checkpoint(tmp_path, DENSE)
    tensors[name] = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_shards(tmp_path, tensors)
    with pytest.raises(
        CheckpointError, match=f"lacks .*unexpected {re.escape(name)} .*does not read"
    ) as error:
        load_model(Path())
    assert "download" not in str(error.value)


class TestOwnHead:
    """A head that was trained apart from the embedding, in a config that says that they are tied."""

    def head(self, tensors: Tensors) -> mx.array:
        return tensors["model.embed_tokens.weight"] * 0.5 + 0.1

    @pytest.mark.parametrize("shards", [1, 3])
    def test_is_used(self, tmp_path: Path, shards: int) -> None:
        tensors = write_checkpoint(tmp_path, DENSE)
        tensors["lm_head.weight"] = self.head(tensors)
        save_shards(tmp_path, tensors, shards)
        model = load_model(tmp_path)
        hidden = np.array(model.model(mx.array([[5, 17, 299, 0, 42, 42, 8]])))[0]
        np.testing.assert_allclose(logits(model), hidden @ np.array(tensors["lm_head.weight"]).T, atol=1e-4)
        assert not model.args.tie_word_embeddings

    def test_that_differs_in_its_last_value_only(self, tmp_path: Path) -> None:
        tensors = write_checkpoint(tmp_path, DENSE)
        head = np.array(tensors["model.embed_tokens.weight"])
        head[-1, -1] += 1
        tensors["lm_head.weight"] = mx.array(head)
        save_shards(tmp_path, tensors)
        assert not load_model(tmp_path).args.tie_word_embeddings

    def test_stays_through_a_conversion(self, tmp_path: Path) -> None:
        tensors = write_checkpoint(tmp_path / "source", DENSE)
        tensors["lm_head.weight"] = self.head(tensors)
        save_shards(tmp_path / "source", tensors)
        convert(tmp_path / "source", tmp_path / "copy", bits=None, verify=False)
        assert json.loads((tmp_path / "copy" / "config.json").read_text())["tie_word_embeddings"] is False
        expected = logits(load_model(tmp_path / "source"))
        np.testing.assert_allclose(logits(load_model(tmp_path / "copy")), expected, atol=1e-5)

    @pytest.mark.parametrize("is_copy", [True, False])
    def test_quantized(self, tmp_path: Path, is_copy: bool) -> None:
        write_checkpoint(tmp_path, DENSE)
        model = Model(ModelConfig.from_dict(DENSE | {"tie_word_embeddings": False}))
        if is_copy:
            model.lm_head.weight = model.model.embed_tokens.weight
        nn.quantize(model, 64, 4)
        save_shards(tmp_path, dict(tree_flatten(model.parameters())))
        quantization = {"quantization": {"bits": 4, "group_size": 64}}
        (tmp_path / "config.json").write_text(json.dumps(DENSE | quantization))
        loaded = load_model(tmp_path)
        assert loaded.args.tie_word_embeddings is is_copy
        np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-4)

    def test_of_another_shape_is_refused_by_name(self, tmp_path: Path) -> None:
        tensors = write_checkpoint(tmp_path, DENSE)
        save_shards(tmp_path, tensors | {"lm_head.weight": mx.zeros((299, 128))})
        with pytest.raises(CheckpointError, match=r"lm_head\.weight has shape \[299, 128\]"):
            load_model(tmp_path)


class TestDotFiles:
    """macOS puts `._<name>` beside each file on a drive that has no place for its attributes."""

    APPLE_DOUBLE = b"\0\5\26\7\0\2\0\0Mac OS X        " + bytes(4000)

    def test_are_no_weights(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path, DENSE)
        expected = logits(load_model(tmp_path))
        (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
        for name in ("._weights.safetensors", "._config.json", ".hidden.safetensors", "._pytorch_model.bin"):
            (tmp_path / name).write_bytes(self.APPLE_DOUBLE)
        np.testing.assert_array_equal(logits(load_model(tmp_path)), expected)
        (tmp_path / "weights.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"holds no \.safetensors file"):
            load_model(tmp_path)

    def test_are_not_copied(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "source", DENSE)
        for name in ("._merges.txt", ".notes.json", "._chat_template.jinja"):
            (tmp_path / "source" / name).write_bytes(self.APPLE_DOUBLE)
        (tmp_path / "source" / "merges.txt").write_text("a b")
        convert(tmp_path / "source", tmp_path / "copy", verify=False)
        names = {path.name for path in (tmp_path / "copy").iterdir()}
        assert "merges.txt" in names
        assert not [name for name in names if name.startswith(".")]
