"""No number in a file is believed before it is compared with what is there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from tiny_checkpoints import DENSE, MOE, save_shards, write_checkpoint

from mlx_qwen3 import load_tokenizer
from mlx_qwen3.checkpoint import load_model, tensor_names
from mlx_qwen3.checkpoint.locate import DEMO_FOLDER
from mlx_qwen3.errors import CheckpointError, ConfigError, Qwen3Error, TokenizerError


@pytest.mark.parametrize("raw", [DENSE, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10**6),
        ("num_hidden_layers", 1000),
        ("num_experts", 4096),
        ("num_experts", 10**9),
        ("vocab_size", 2**22),
        ("vocab_size", 2**40),
        ("hidden_size", 2**20),
        ("intermediate_size", 2**20),
        ("num_attention_heads", 4096),
        ("head_dim", 8192),
    ],
)
def test_a_size_that_the_weights_do_not_have_is_refused_at_once(
    tmp_path: Path, raw: dict, field: str, value: int
) -> None:
    if field not in raw:
        pytest.skip("a dense model has no experts")
    write_checkpoint(tmp_path, raw)
    (tmp_path / "config.json").write_text(json.dumps(raw | {field: value}))
    started = time.process_time()
    with pytest.raises((CheckpointError, ConfigError)) as error:
        load_model(tmp_path)
    assert time.process_time() - started < 5
    assert len(str(error.value)) < 300 + 3 * len(str(tmp_path))


def test_experts_that_would_be_millions_of_names(tmp_path: Path) -> None:
    raw = MOE | {"num_hidden_layers": 60, "mlp_only_layers": []}
    tensors = write_checkpoint(tmp_path, raw)
    kept = {
        name: value for name, value in tensors.items() if ".experts." not in name or ".experts.0." in name
    }
    save_shards(tmp_path, kept)
    (tmp_path / "config.json").write_text(json.dumps(raw | {"num_experts": 4000}))
    with pytest.raises(CheckpointError, match="num_experts 4,000, but the weights hold at most 1 a layer"):
        load_model(tmp_path)


def test_more_tensors_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, MOE)
    monkeypatch.setattr(tensor_names, "MAX_TENSORS", 20)
    with pytest.raises(CheckpointError, match="more than 20 tensors"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.safetensors.index.json"])
def test_a_fifo_or_a_folder_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    for make in (os.mkfifo, os.mkdir):
        folder = tmp_path / make.__name__
        write_checkpoint(folder, DENSE)
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with pytest.raises((CheckpointError, ConfigError), match=name):
            load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    "value",
    [
        '{"a": ' * 90_000,
        '{"a": ' * 300 + "1" + "}" * 300,
        "[" * 500 + "]" * 500,
        "[" * 40 + "]" * 40,
        "NaN",
        '[{"b": -Infinity}]',
        "9" * 10_000,
        "1e999",
        "1}\0",
        '"' + "x" * 2**25 + '"',
    ],
    ids=range(10),
)
def test_deep_and_impossible_json_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    write_checkpoint(tmp_path, DENSE, shards=2)
    content = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(content)[:-1] + f', "unknown": {value}}}', encoding="utf-8")
    with pytest.raises(Qwen3Error, match=name) as error:
        load_model(tmp_path)
    assert type(error.value) in (CheckpointError, ConfigError)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300 + 3 * len(str(tmp_path))


def test_names_of_tensors_are_shown_cut_and_without_control_characters(tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path, DENSE)
    for name in ("\x1b[2J\x1b]0;x\x07" + "a" * 10**6, "b\n\u202e" * 10**5, "\x9b31m"):
        save_shards(tmp_path, tensors | {name: tensors["model.norm.weight"]})
        with pytest.raises(CheckpointError, match="unexpected") as error:
            load_model(tmp_path)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 400 + 3 * len(str(tmp_path))


class TestTokenizer:
    """A GPU reads the memory behind the embedding for an id that has no row there."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            (tmp_path / name).write_bytes((DEMO_FOLDER / name).read_bytes())
        return tmp_path

    def resize(self, folder: Path, rows: int) -> None:
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | {"vocab_size": rows}))

    def test_with_a_row_for_each_id_or_more_is_loaded(self, folder: Path) -> None:
        largest = max(load_tokenizer(folder).get_vocab().values())
        for rows in (largest + 1, largest + 100):
            self.resize(folder, rows)
            assert load_tokenizer(folder)

    def test_with_an_id_too_many_is_refused(self, folder: Path) -> None:
        largest = max(load_tokenizer(folder).get_vocab().values())
        self.resize(folder, largest)
        with pytest.raises(TokenizerError, match=f"has token {largest:,}, but the embedding ends with"):
            load_tokenizer(folder)

    def test_an_added_token_counts(self, folder: Path) -> None:
        rows = json.loads((folder / "config.json").read_text())["vocab_size"]
        raw = json.loads((folder / "tokenizer.json").read_text())
        raw["added_tokens"].append(raw["added_tokens"][0] | {"id": rows + 5, "content": "<|new|>"})
        for added in range(rows):  # ids of added tokens follow one another
            raw["added_tokens"].append(
                raw["added_tokens"][0] | {"id": rows + added, "content": f"<|{added}|>"}
            )
        (folder / "tokenizer.json").write_text(json.dumps(raw))
        with pytest.raises(TokenizerError, match="but the embedding ends with"):
            load_tokenizer(folder)

    def test_by_itself_is_loaded(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        assert load_tokenizer(folder)

    @pytest.mark.parametrize(
        "part",
        [
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}},
            {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Metaspace\x1b"}]}},
        ],
    )
    def test_with_a_part_that_qwen_has_not_is_refused(
        self, folder: Path, part: dict, capfd: pytest.CaptureFixture[str]
    ) -> None:
        raw = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(raw | part))
        with pytest.raises(TokenizerError, match="it has a part of type") as error:
            load_tokenizer(folder)
        assert str(error.value).isprintable()
        assert "panicked" not in capfd.readouterr().err
